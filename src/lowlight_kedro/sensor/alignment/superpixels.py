"""Mosaics in superpixels that all hold the same colours, and the shifts that keep a mosaic in phase."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa


def superpixel_size(cfa: Cfa) -> int:
    """Side of the smallest squares that all hold the same number of each colour: 2 for Bayer, 3 for X-Trans."""
    period = len(cfa)
    for side in (side for side in range(1, period) if period % side == 0):
        starts = range(0, period, side)
        counts = [Counter(cfa[top + y][left + x] for y in range(side) for x in range(side)) for top in starts for left in starts]
        if all(count == counts[0] for count in counts):
            return side
    return period


def phase_keeping_shifts(cfa: Cfa) -> NDArray[np.int64]:
    """All (dy, dx) inside one period that map the pattern onto itself: (0, 0) for Bayer, also (3, 3) for X-Trans."""
    pattern = np.asarray(cfa)
    return np.argwhere([
        [np.array_equal(np.roll(pattern, (-dy, -dx), (0, 1)), pattern) for dx in range(len(pattern))] for dy in range(len(pattern))
    ])  # fmt: skip


def nearest_phase_keeping(shift: tuple[float, float], cfa: Cfa) -> tuple[int, int]:
    """The whole shift (dy, dx) nearest to `shift`, photosites, after which each site meets one of its own colour."""
    period = len(cfa)
    base = np.floor(np.asarray(shift) / period).astype(int) * period
    corners = base + period * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    candidates = (corners[:, None] + phase_keeping_shifts(cfa)).reshape(-1, 2)
    best = candidates[np.square(candidates - shift).sum(axis=1).argmin()]
    return int(best[0]), int(best[1])


def binned(image: NDArray, side: int) -> NDArray:
    """Means of squares of `side`; a remainder at the lower and right edge is left out."""
    rows, columns = (length // side for length in image.shape)
    total = sum(image[y : rows * side : side, x : columns * side : side] for y in range(side) for x in range(side))
    return np.asarray(total) / np.float32(side**2)


def any_in(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Squares of `side` in which any element is True."""
    return binned(mask.astype(np.float32), side) > 0


def overlap(shape: tuple[int, int], shift: tuple[int, int], period: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Parts of two frames of one `shape` that show the same: short[part] and long[part], long[y + dy, x + dx] = short[y, x].

    The part of the short frame starts at a whole `period`, so its pattern is unchanged.

    Raises:
        ValueError: nothing overlaps.
    """
    here, there = [], []
    for length, moved in zip(shape, shift, strict=True):
        start = -(-max(0, -moved) // period) * period
        stop = min(length, length - moved)
        if stop - start < period:
            raise ValueError(f"a shift of {shift} leaves nothing of a frame of {shape} in common")
        here.append(slice(start, stop))
        there.append(slice(start + moved, stop + moved))
    return (here[0], here[1]), (there[0], there[1])
