"""Guidance by replacing: each measured site follows y's own noise down to its level."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import karras_sigmas
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement


def ddrm(
    denoiser: DenoiserFunction, measurement: Measurement, *, eta: float = 0.85, sigma_min: float = 0.01, sigma_max: float = 10.0
) -> Posterior:  # fmt: skip
    """DDRM (Kawar et al. 2022, with eta_b = 1), diagonal because the singular vectors of a mosaic are its sites.

    From level sigma to sigma', D = D(x; sigma), n standard normal:
        measured, s <= sigma':  x <- y + sqrt(sigma'^2 - s^2) n: y's own noise is part of x's, so y is counted once
        measured, s > sigma':   x <- D + sqrt(1 - eta^2) sigma' (y - D) / s + eta sigma' n
        not measured:           x <- D + sqrt(1 - eta^2) sigma' (x - D) / sigma + eta sigma' n
    If D were x0, x would hold noise of exactly sigma' after every step. But D sees x_t only: below s a part of what y tells
    is lost at every step, and with many steps missing values have (1 + sqrt(1 - eta^2)) / 2 of their variance (derived).
    Exact for independent values, many steps, eta = 0 and s <= sigma_min. Starts at the larger of `sigma_max` and max s.
    1 evaluation a step.
    """
    y, s, measured = measurement.y, measurement.s, measurement.mask > 0

    def draw(first: Tensor, evaluations: int, generator: torch.Generator) -> Iterator[Tensor]:
        sigmas = karras_sigmas(evaluations, sigma_min, max(sigma_max, float(s.max()))).to(first)
        spread = torch.where(measured, (sigmas[0].square() - s.square()).clamp(min=0).sqrt(), sigmas[0])
        x = torch.where(measured, y, first) + spread * standard_normal(first, generator)
        for sigma, following in zip(sigmas[:-1].reshape(-1, 1, 1, 1, 1), sigmas[1:].reshape(-1, 1, 1, 1, 1), strict=True):
            mean, noise = denoiser(x, sigma), standard_normal(x, generator)
            known = torch.where(measured, (y - mean) / s, (x - mean) / sigma)
            inside = mean + following * ((1 - eta**2) ** 0.5 * known + eta * noise)
            above = y + (following.square() - s.square()).clamp(min=0).sqrt() * noise
            x = torch.where(measured & (s <= following), above, inside)
            yield x

    return Posterior(draw=draw)
