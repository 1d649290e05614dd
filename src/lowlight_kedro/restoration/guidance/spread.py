"""How far x0 lies from the denoiser's mean: the surrogate that diagonal methods put for the covariance of p(x0 | x_t)."""

from collections.abc import Sequence

import torch
from torch import Tensor

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
    share = (at - levels[right - 1]) / (levels[right] - levels[right - 1])
    return torch.lerp(values[right - 1], values[right], share).exp().to(sigma)


def surrogate_variance(sigma: Tensor, sigma_data: float, table: Table | None = None) -> Tensor:
    """r^2 of p(x0 | x_t) ~ N(D, r^2 1): from a `table` of (sigma, r^2), else that of a white prior of variance sigma_data^2.

    r^2 = sigma^2 sd^2 / (sigma^2 + sd^2). A table is the mean squared error of the denoiser at each level, as validation
    measures it: there r^2 is right on average, whatever the prior.
    """
    if table is not None:
        return interpolate(table, sigma)
    return sigma.square() * sigma_data**2 / (sigma.square() + sigma_data**2)
