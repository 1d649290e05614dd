"""Guidance: a denoiser of the prior, E[x0 | x_t], becomes one of the posterior, E[x0 | x_t, y].

Every method takes per-site noise `measurement.s` and returns a function with the signature of a denoiser, so that
one sampler serves both. `sigma` is a scalar level (1, 1, 1, 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.measurement import Measurement

Guidance = Callable[..., DenoiserFunction]

SIGMA_UNKNOWN = 80.0  # the level that tells the network: nothing is known of this value; the value itself is 0


def surrogate_variance(sigma: Tensor, sigma_data: float) -> Tensor:
    """r^2 of p(x0 | x_t) ~ N(D, r^2) for data of variance sigma_data^2: sigma^2 sd^2 / (sigma^2 + sd^2)."""
    return sigma.square() * sigma_data**2 / (sigma.square() + sigma_data**2)


def diffpir(denoiser: DenoiserFunction, measurement: Measurement, *, sigma_data: float = 0.5, strength: float = 1.0) -> DenoiserFunction:
    """Closed form, no gradient: every measured value moves from D towards y by its precision.

    D_y = D + w (y - D), w = r^2 / (r^2 + s^2) on measured sites, 0 elsewhere; `strength` multiplies r^2.
    The proximal step of DiffPIR (Zhu et al. 2023), diagonal because A A^T = I. 1 evaluation.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        mean = denoiser(x, sigma)
        spread = strength * surrogate_variance(sigma, sigma_data)
        weight = measurement.mask * spread / (spread + measurement.s.square())
        return mean + weight * (measurement.y - mean)

    return posterior


def dps(denoiser: DenoiserFunction, measurement: Measurement, *, strength: float = 1.0) -> DenoiserFunction:
    """Gradient of the likelihood at D, through the network (Chung et al. 2023), with per-site weights.

    D_y = D - strength sigma^2 grad_x (N / 2) ln sum e^2, e = (y - A D) / s, N the number of measured sites, per image.
    DPS divides its step by the norm of the residual; here the residual is whitened first, and the rule is that
    of a likelihood whose global scale is unknown, which makes it independent of the size of the frame.
    1 evaluation and 1 vector-Jacobian product.
    """
    count = measurement.mask.sum(dim=(1, 2, 3))

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean = denoiser(x, sigma)
            error = measurement.mask * (measurement.y - mean) / measurement.s
            gradient = torch.autograd.grad((count / 2 * error.square().sum(dim=(1, 2, 3)).log()).sum(), x)[0]
        return (mean - strength * sigma.square() * gradient).detach()

    return posterior


def noise_map(denoiser: DenoiserFunction, measurement: Measurement) -> DenoiserFunction:
    """Exact, for a prior trained on noise maps: y and x_t are two independent looks at x0, so weigh them into one.

    z = (y / s^2 + x / sigma^2) / p with precision p = 1 / s^2 + 1 / sigma^2 on measured sites, z = x elsewhere;
    D_y = D(z; p^(-1/2)). With sigma at `SIGMA_UNKNOWN` x counts for nothing: D_y is E[x0 | y]. 1 evaluation.
    """
    precision_y = measurement.mask / measurement.s.square()

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        unknown = sigma >= SIGMA_UNKNOWN
        x = torch.where(unknown, torch.zeros_like(x), x)
        precision_x = torch.where(unknown, 0.0, sigma.pow(-2)).expand_as(x)
        precision = precision_y + precision_x
        z = (measurement.y * precision_y + x * precision_x) / precision.clamp(min=1e-12)
        return denoiser(z, precision.clamp(min=SIGMA_UNKNOWN**-2).rsqrt())

    return posterior


noise_map.needs_noise_maps = True  # type: ignore[attr-defined]

GUIDANCE: dict[str, Guidance] = {"diffpir": diffpir, "dps": dps, "noise_map": noise_map}
