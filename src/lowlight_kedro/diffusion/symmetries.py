"""The eight symmetries of a square, of images: mirrored and turned copies, and back."""

from torch import Tensor


def _mirrored(x: Tensor, number: int) -> Tensor:
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    return x.flip(axes) if axes else x  # flip copies


def _swapped(x: Tensor, number: int) -> Tensor:
    return x.transpose(-1, -2) if number & 4 else x


def turned(x: Tensor, number: int) -> Tensor:
    """Symmetry `number` of a square: bit 0 mirrors columns, bit 1 rows, then bit 2 swaps the two. (..., H, W) to itself or (..., W, H)."""
    return _swapped(_mirrored(x, number), number)


def turned_back(x: Tensor, number: int) -> Tensor:
    """The inverse of `turned`."""
    return _mirrored(_swapped(x, number), number)
