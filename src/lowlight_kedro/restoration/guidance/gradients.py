"""Guidance by the gradient of the likelihood, through the network: MMPS, DPS as a single step of it, DPS as published, and PiGDM."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, standard_normal
from lowlight_kedro.diffusion.samplers import ancestral_step, karras_sigmas
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


def dps_norm(
    denoiser: DenoiserFunction, measurement: Measurement, *, zeta: float = 0.25, sigma_min: float = 0.01, sigma_max: float = 10.0
) -> Posterior:  # fmt: skip
    """DPS as published (Chung et al. 2023, algorithm 1): after each ancestral step x <- x - zeta / |y - A D| grad |y - A D|^2.

    Neither per pixel nor whitened: `s` is not used, and the result depends on zeta, on the number of steps and of sites.
    The paper's state has the variance-preserving scale x / sqrt(1 + sigma^2); in ours its step is
    2 zeta sqrt(1 + sigma^2) sqrt(1 + sigma'^2) J^T A^T (y - A D) / |y - A D|, sigma' the next level. No prior makes it exact.
    The authors' code multiplies the gradient of the norm itself: its scale of 0.5 for inpainting is zeta = 0.25 here.
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
