"""Moving sums, for local means: by doubling, several times faster than an average pool on a CPU."""

from torch import Tensor


def moving_sum(x: Tensor, length: int, dim: int) -> Tensor:
    """Sums of `length` neighbours along `dim`, made from sums of half as many; `length` - 1 values fewer than `x` has."""
    if length == 1:
        return x
    half, count = moving_sum(x, length // 2, dim), x.shape[dim] - length + 1
    total = half.narrow(dim, 0, count) + half.narrow(dim, length // 2, count)
    return total + x.narrow(dim, length - 1, count) if length % 2 else total
