"""Guidance in closed form, without a gradient."""

from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement


def surrogate_variance(sigma: Tensor, sigma_data: float) -> Tensor:
    """r^2 of p(x0 | x_t) ~ N(D, r^2) for data of variance sigma_data^2: sigma^2 sd^2 / (sigma^2 + sd^2)."""
    return sigma.square() * sigma_data**2 / (sigma.square() + sigma_data**2)


def diffpir(denoiser: DenoiserFunction, measurement: Measurement, *, sigma_data: float = 0.5, strength: float = 1.0) -> Posterior:
    """Closed form, no gradient: every measured value moves from D towards y by its precision.

    D_y = D + w (y - D), w = r^2 / (r^2 + s^2) on measured sites, 0 elsewhere; `strength` multiplies r^2.
    The proximal step of DiffPIR (Zhu et al. 2023), diagonal because A A^T = I. 1 evaluation.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean = denoiser(x, sigma)
        spread = strength * surrogate_variance(sigma, sigma_data)
        weight = measurement.mask * spread / (spread + measurement.s.square())
        return mean + weight * (measurement.y - mean)

    return Posterior(denoiser=posterior)
