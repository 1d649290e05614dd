"""Guidance by the gradient of the likelihood, through the network, with a step that follows from it."""

from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.jacobian import inner, with_covariance
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.guidance.spread import Table, surrogate_variance
from lowlight_kedro.restoration.measurement import Measurement


def dps(
    denoiser: DenoiserFunction, measurement: Measurement, *, sigma_data: float = 0.5, variance: Table | None = None,
    strength: float = 1.0,
) -> Posterior:  # fmt: skip
    """A step of steepest descent along the likelihood's gradient through the network (Chung et al. 2023), its length exact.

    D_y = D + strength a V A^T u, V = sigma^2 J, with the per-site weights u = (S + r^2)^-1 (y - A D): V A^T u is -sigma^2 times
    the gradient of sum (y - A D)^2 / (s^2 + r^2) / 2 by x_t. The length a = <u, y - A D> / <u, (S + A V A^T) u> brings a u
    nearest to (S + A V A^T)^-1 (y - A D), which is exact for Gaussian priors, in that matrix's own norm (derived: the first
    step of conjugate gradients, see `mmps`). It costs nothing, V A^T u is at hand, and depends neither on the size of the
    frame nor on the scale of the weights: `strength` = 1 needs no tuning. Exact for independent values of one posterior
    variance: that of `surrogate_variance`, or any if s is the same everywhere. 1 evaluation and 1 vector-Jacobian product.
    """
    noise = measurement.s.square()

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean, covariance = with_covariance(denoiser, x, sigma, products=1)
        error = measurement.mask * (measurement.y - mean)
        direction = error / (noise + surrogate_variance(sigma, sigma_data, variance))
        step = covariance(direction)
        # a learned Jacobian need not be positive: without the absolute value the length could be infinite
        curvature = inner(direction, noise * direction) + inner(direction, step).abs()
        length = inner(direction, error) / curvature.clamp(min=1e-30)
        return mean + strength * length * step

    return Posterior(denoiser=posterior)
