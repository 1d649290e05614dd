"""Guidance by moment matching: the covariance of p(x0 | x_t) is the denoiser's own Jacobian."""

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior, Table, inner, surrogate_variance, with_covariance
from lowlight_kedro.restoration.measurement import Measurement


def mmps(
    denoiser: DenoiserFunction, measurement: Measurement, *, solves: int = 3, sigma_data: float = 0.5, variance: Table | None = None
) -> Posterior:  # fmt: skip
    """D_y = D + V A^T (S + A V A^T)^-1 (y - A D), V = sigma^2 J: exact for every Gaussian prior (Rozet et al. 2024).

    The system is solved by `solves` steps of conjugate gradients, preconditioned by S + r^2 of `surrogate_variance`; what is
    not solved for stays as the prior has it. One step is `dps`. 1 evaluation and `solves` vector-Jacobian products.
    """
    noise = measurement.s.square()

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean, covariance = with_covariance(denoiser, x, sigma, products=solves)
        diagonal = noise + surrogate_variance(sigma, sigma_data, variance)
        error = measurement.mask * (measurement.y - mean)
        along = direction = error / diagonal
        size, total = inner(error, direction), torch.zeros_like(mean)
        for _ in range(solves):
            step = covariance(along)
            # a learned Jacobian need not be positive: without the absolute value the length could be infinite
            curvature = inner(along, noise * along) + inner(along, step).abs()
            length = size / curvature.clamp(min=1e-30)
            total = total + length * step
            error = error - length * measurement.mask * (noise * along + step)
            direction = error / diagonal
            before, size = size, inner(error, direction)
            along = direction + size / before.clamp(min=1e-30) * along
        return mean + total

    return Posterior(denoiser=posterior)
