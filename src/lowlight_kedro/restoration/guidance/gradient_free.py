"""Guidance without a gradient: DiffPIR in closed form, DDRM by replacing, and the posterior mean by message passing."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import karras_sigmas
from lowlight_kedro.restoration.guidance.posterior import Posterior, Table, interpolate, surrogate_variance
from lowlight_kedro.restoration.measurement import Measurement, local_mean


def diffpir(
    denoiser: DenoiserFunction, measurement: Measurement, *, sigma_data: float = 0.5, strength: float = 1.0,
    variance: Table | None = None,
) -> Posterior:  # fmt: skip
    """Closed form, no gradient: every measured value moves from D towards y by its precision.

    D_y = D + w (y - D), w = r^2 / (r^2 + s^2) on measured sites, 0 elsewhere; `strength` multiplies r^2, see
    `surrogate_variance` for the rest. The proximal step of DiffPIR (Zhu et al. 2023), diagonal because A A^T = I;
    theirs has r^2 = sigma^2 / lambda, which grows beyond any prior. Exact for a prior of independent values with
    posterior variance r^2: what one site tells of its neighbours is not in D_y. 1 evaluation.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean = denoiser(x, sigma)
        spread = strength * surrogate_variance(sigma, sigma_data, variance)
        weight = measurement.mask * spread / (spread + measurement.s.square())
        return mean + weight * (measurement.y - mean)

    return Posterior(denoiser=posterior)


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


PROBE = 0.1  # step of the difference quotient over sigma: small for the denoiser, large for single precision
GAIN_LIMITS = (1e-3, 1 - 1e-3)  # of alpha: at 0 and 1 the next precision would be infinite or 0


def mean_gain(denoiser: DenoiserFunction, x: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Mean of the diagonal of J = dD/dx per image, (B, 1, 1, 1), by random signs (Hutchinson). 1 evaluation.

    The signs are the same for all images and calls: the result is a function of its input.
    """
    generator = torch.Generator(device=x.device).manual_seed(0)
    sign = 2.0 * torch.randint(0, 2, x.shape[1:], generator=generator, device=x.device).to(x) - 1
    moved = denoiser(x + PROBE * sigma * sign, sigma)
    return (sign * (moved - mean)).mean(dim=(1, 2, 3), keepdim=True) / (PROBE * sigma)


def vamp(
    denoiser: DenoiserFunction, measurement: Measurement, *, iterations: int = 3, damping: float = 0.8, sigma_data: float = 0.5,
    gain: Table | None = None, reach: int = 4,
) -> Posterior:  # fmt: skip
    """E[x0 | y] by vector approximate message passing with a diagonal likelihood (Rangan et al. 2019).

    Likelihood and prior pass each other a mean and one precision per image, without what came from the other:
        p = 1/s^2 + g1 (g1 alone where nothing was measured),  xh = (y/s^2 + g1 r) / p,  c = 1 / mean(1/p)
        g2 = c - g1,  q = (c xh - g1 r) / g2,  d = D(q; g2^-1/2),  g' = g2 / alpha,  alpha = mean diag dD/dx
        g1 <- g' - g2,  r <- (g' d - g2 q) / g1, both damped after the first time: new = damping new + (1 - damping) old
    and xh is the result. Begins at r = the local mean of y and g1 = sigma_data^-2. For Gaussian priors every fixed point is
    the exact posterior mean, whatever alpha and damping are (derived: there C^-1 (m - x) + S^-1 (y - x) = 0).

    Args:
        iterations: each 1 evaluation, and 1 more for alpha if there is no table.
        damping: in (0, 1]; 1 is plain, smaller is slower and safer.
        gain: pairs (sigma, alpha); None measures alpha by `mean_gain`.
        reach: half the side of the windows of the local mean, pixels.
    """
    y, precision = measurement.y, measurement.mask / measurement.s.square()

    def mean() -> Tensor:
        r, g1 = local_mean(y, measurement.mask, reach), torch.full_like(y[:, :1, :1, :1], sigma_data**-2)
        fused = r
        for iteration in range(iterations + 1):
            p = precision + g1
            fused = (precision * y + g1 * r) / p
            if iteration == iterations:
                break
            # a frame without information: 1 / mean(1/p) may fall to g1, and q be of infinite variance
            total = torch.maximum(1 / (1 / p).mean(dim=(1, 2, 3), keepdim=True), (1 + 1e-6) * g1)
            g2 = total - g1
            q, sigma = (total * fused - g1 * r) / g2, g2.rsqrt()
            d = denoiser(q, sigma)
            alpha = (mean_gain(denoiser, q, d, sigma) if gain is None else interpolate(gain, sigma)).clamp(*GAIN_LIMITS)
            keep = 0.0 if iteration == 0 else 1 - damping
            following = g2 / alpha - g2
            r = keep * r + (1 - keep) * (d - alpha * q) / (1 - alpha)
            g1 = keep * g1 + (1 - keep) * following
        return fused

    return Posterior(mean=mean, mean_evaluations=iterations * (2 if gain is None else 1))
