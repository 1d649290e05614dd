"""What guidance makes of a prior and a measurement, and what several methods need for it.

The derivatives of the denoiser: p(x0 | x_t) has the covariance V = sigma^2 J, J = dD/dx. The surrogate r^2 that diagonal
methods put for that covariance.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.measurement import Measurement

SIGMA_UNKNOWN = 80.0  # the level that tells the network: nothing is known of this value; the value itself is 0

Draw = Callable[[Tensor, int, torch.Generator], Iterator[Tensor]]


@dataclass(frozen=True)
class Posterior:
    """P(x0 | y) in the forms that a method knows; None where it does not.

    Attributes:
        denoiser: (x, sigma) -> E[x0 | x_t, y], sigma a scalar level (1, 1, 1, 1): any sampler can follow it.
        mean: () -> E[x0 | y], without sampling.
        mean_evaluations: of the prior's denoiser, that `mean` takes.
        draw: (first, evaluations, generator) -> states of the method's own sampler, the last one a draw of P(x0 | y) within
            `evaluations` of the prior's denoiser; `first` (1, 3, H, W) is an estimate of x0 that needs no prior.
        std: E[x0 | y] -> standard deviation of P(x0 | y), both (1, 3, H, W), where the prior has learned it; no evaluation.
        needs_noise_maps: the prior must have been trained on noise maps.
    """

    denoiser: DenoiserFunction | None = None
    mean: Callable[[], Tensor] | None = None
    mean_evaluations: int = 1
    draw: Draw | None = None
    std: Callable[[Tensor], Tensor] | None = None
    needs_noise_maps: bool = False


Guidance = Callable[..., Posterior]


def capabilities(guidance: Guidance, denoiser: DenoiserFunction) -> Posterior:
    """What `guidance` offers, asked with a measurement of one pixel; nothing is evaluated."""
    zeros, ones = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    return guidance(denoiser, Measurement(zeros, ones, ones))


def with_covariance(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, *, products: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x; sigma) and u -> sigma^2 J^T u, one vector-Jacobian product a call, for up to `products` calls.

    Second-order Tweedie: Cov(x0 | x_t) = sigma^2 J (Efron 2011). The memory of the graph is freed with the last call.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        mean = denoiser(x, sigma)
    left = products

    def covariance(u: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        return sigma.square() * torch.autograd.grad(mean, x, u, retain_graph=left > 0)[0]

    return mean.detach(), covariance


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per image, (B, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)


Table = Sequence[tuple[float, float]]  # (level, value) with rising levels


def interpolate(table: Table, sigma: Tensor) -> Tensor:
    """Values of a table at `sigma`, linear in the logarithm of both; the ends hold beyond them.

    Raises:
        ValueError: the table is empty, its levels do not rise, or a number is not positive.
    """
    points = torch.as_tensor(table, dtype=torch.float64)
    if points.ndim != 2 or points.shape[-1] != 2 or not (points > 0).all() or not (points[1:, 0] > points[:-1, 0]).all():
        raise ValueError(f"a table must be pairs [sigma, value], positive, with rising sigma, got {list(table)}")
    if len(points) == 1:
        return torch.full_like(sigma, float(points[0, 1]))
    levels, values = points.T.contiguous().log().to(sigma.device)
    at = sigma.double().log().clamp(levels[0], levels[-1]).contiguous()
    right = torch.searchsorted(levels, at).clamp(1, len(levels) - 1)
    fraction = (at - levels[right - 1]) / (levels[right] - levels[right - 1])
    return torch.lerp(values[right - 1], values[right], fraction).exp().to(sigma)


def surrogate_variance(sigma: Tensor, sigma_data: float, table: Table | None = None) -> Tensor:
    """r^2 of p(x0 | x_t) ~ N(D, r^2 1): from a `table` of (sigma, r^2), else that of a white prior of variance sigma_data^2.

    r^2 = sigma^2 sd^2 / (sigma^2 + sd^2). A table is the mean squared error of the denoiser at each level, as validation
    measures it: there r^2 is right on average, whatever the prior.
    """
    if table is not None:
        return interpolate(table, sigma)
    return sigma.square() * sigma_data**2 / (sigma.square() + sigma_data**2)
