"""Guidance by the pseudo-inverse, through the network."""

from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior, Table, surrogate_variance, with_covariance
from lowlight_kedro.restoration.measurement import Measurement


def pigdm(
    denoiser: DenoiserFunction, measurement: Measurement, *, sigma_data: float = 0.5, variance: Table | None = None
) -> Posterior:  # fmt: skip
    """D_y = D + sigma^2 J^T A^T (S + r^2 A A^T)^-1 (y - A D) (Song et al. 2023, with a step of 1).

    r^2 of `surrogate_variance` stands for A V A^T, V = sigma^2 J, inside the inverse only: exact for a prior of independent
    values whose posterior variance is r^2. Where neighbours are correlated V has modes above r^2 and the step goes
    beyond y there; the larger r^2, the smaller the step. 1 evaluation and 1 vector-Jacobian product.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean, covariance = with_covariance(denoiser, x, sigma, products=1)
        spread = surrogate_variance(sigma, sigma_data, variance)
        weighted = measurement.mask * (measurement.y - mean) / (measurement.s.square() + spread)
        return mean + covariance(weighted)

    return Posterior(denoiser=posterior)
