"""Guidance in closed form, without a gradient."""

from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior, Table, surrogate_variance
from lowlight_kedro.restoration.measurement import Measurement


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
