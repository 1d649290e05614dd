"""Cut linear RGB images into tiles and put them into the tile domain [-1, 1]."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE_SLOPE = 2.0  # of the tile domain: [0, 1] -> [-1, 1]


@dataclass(frozen=True)
class Position:
    """Where a tile lies: grid `row`, `column`, and pixel `top`, `left` in its image."""

    row: int
    column: int
    top: int
    left: int


def starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of windows of `size` that cover `length`; the last one is moved in to end at the edge.

    Raises:
        ValueError: `length` is smaller than `size`, or `stride` is not in [1, size].
    """
    if not 1 <= stride <= size:
        raise ValueError(f"stride must be in [1, size], got stride={stride}, size={size}")
    if length < size:
        raise ValueError(f"an image side of {length} is smaller than the tile size {size}")
    return [*range(0, length - size, stride), length - size]


def grid(shape: tuple[int, int], size: int, stride: int) -> list[Position]:
    """All tile positions of an image of `shape` (H, W), row by row."""
    return [
        Position(row, column, top, left)
        for row, top in enumerate(starts(shape[0], size, stride))
        for column, left in enumerate(starts(shape[1], size, stride))
    ]


def cut(image: NDArray, size: int, stride: int) -> Iterator[tuple[Position, NDArray]]:
    """Views (C, size, size) of `image` (C, H, W) with their positions."""
    for position in grid(image.shape[1:], size, stride):
        yield position, image[:, position.top : position.top + size, position.left : position.left + size]


def to_tile_domain(rgb: NDArray) -> NDArray[np.float32]:
    """White-balanced linear RGB, 0 = black, 1 = white, to the tile domain [-1, 1].

    A tile is an estimate of clean light, so it is projected on what light can be, [0, 1]; the fraction of
    values that this moves is `clipped_fraction`. Measurements that enter a likelihood never come here.
    """
    tile = np.clip(rgb, 0, 1).astype(np.float32, copy=False)
    tile *= TILE_SLOPE
    tile -= 1
    return tile


def from_tile_domain(tile: Any) -> Any:
    """Tile domain [-1, 1] back to linear RGB with 0 = black, 1 = white; NumPy array or torch tensor."""
    return (tile + 1) / TILE_SLOPE


def clipped_fraction(rgb: NDArray) -> float:
    """Fraction of values of linear RGB outside [0, 1]."""
    return (np.count_nonzero(rgb < 0) + np.count_nonzero(rgb > 1)) / rgb.size
