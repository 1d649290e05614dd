"""The original rule of diffusion posterior sampling, for comparison with what others report."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import ancestral_step, karras_sigmas
from lowlight_kedro.restoration.guidance.jacobian import inner, with_covariance
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement


def dps_norm(
    denoiser: DenoiserFunction, measurement: Measurement, *, zeta: float = 0.25, sigma_min: float = 0.01, sigma_max: float = 10.0
) -> Posterior:  # fmt: skip
    """DPS as published (Chung et al. 2023, algorithm 1): after each ancestral step x <- x - zeta / |y - A D| grad |y - A D|^2.

    Neither per pixel nor whitened: `s` is not used, and the result depends on zeta, on the number of steps and of sites.
    The paper's state has the variance-preserving scale x / sqrt(1 + sigma^2); in ours its step is
    2 zeta sqrt(1 + sigma^2) sqrt(1 + sigma'^2) J^T A^T (y - A D) / |y - A D|, sigma' the next level. No prior makes it exact.
    The authors' code multiplies the gradient of the norm itself: its scale of .5 for inpainting is zeta = .25 here.
    1 evaluation and 1 vector-Jacobian product a step.
    """

    def draw(first: Tensor, evaluations: int, generator: torch.Generator) -> Iterator[Tensor]:
        sigmas = karras_sigmas(evaluations, sigma_min, sigma_max).to(first)
        x = first + sigmas[0] * standard_normal(first, generator)
        for sigma, following in zip(sigmas[:-1].reshape(-1, 1, 1, 1, 1), sigmas[1:].reshape(-1, 1, 1, 1, 1), strict=True):
            mean, covariance = with_covariance(denoiser, x, sigma, products=1)
            error = measurement.mask * (measurement.y - mean)
            unit = error / inner(error, error).sqrt().clamp(min=1e-30)
            scale = ((1 + sigma.square()) * (1 + following.square())).sqrt() / sigma.square()
            x = ancestral_step(x, mean, sigma, following, generator) + 2 * zeta * scale * covariance(unit)
            yield x

    return Posterior(draw=draw)
