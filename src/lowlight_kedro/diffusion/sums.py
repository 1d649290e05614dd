"""Moving sums, for local means: by doubling, several times faster than an average pool on a CPU."""

import torch.nn.functional as F
from torch import Tensor


def moving_sum(x: Tensor, length: int, dim: int) -> Tensor:
    """Sums of `length` neighbours along `dim`, made from sums of half as many; `length` - 1 values fewer than `x` has."""
    if length == 1:
        return x
    half, count = moving_sum(x, length // 2, dim), x.shape[dim] - length + 1
    total = half.narrow(dim, 0, count) + half.narrow(dim, length // 2, count)
    return total + x.narrow(dim, length - 1, count) if length % 2 else total


def box_sum(x: Tensor, reach: int) -> Tensor:
    """Sums over (2 reach + 1)^2 windows of the last two dimensions, 2 reach fewer along each than `x` has."""
    side = 2 * reach + 1
    return moving_sum(moving_sum(x, side, -2), side, -1)


def box_sum_padded(x: Tensor, reach: int) -> Tensor:
    """The same with 0 outside the image, as large as `x`."""
    return box_sum(F.pad(x, (reach, reach, reach, reach)), reach) if reach else x
