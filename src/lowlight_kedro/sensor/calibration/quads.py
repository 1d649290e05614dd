"""Four photosites of one colour on a parallelogram, for any colour filter array, and their orthonormal differences.

A quad holds sites at p, p+u, p+v, p+u+v. Its Haar transform has a mean, two first differences and the mixed second
difference (a - b - c + d) / 2, which no linear gradient reaches and which carries the variance of a single site.
In X-Trans the greens touch; in Bayer they are 1.4 sites apart, red and blue 2.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa

MAX_REACH = 8  # longest u^2 + v^2: two Bayer sites along both axes


@dataclass(frozen=True)
class Quad:
    """Four (row, column) offsets inside a block of `block_side` sites; they may reach into the next block."""

    channel: int
    sites: tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]


def block_side(cfa: Cfa) -> int:
    """Sites along a block: the smallest multiple of the period into which disjoint quads fit, 4 (Bayer) or 6 (X-Trans)."""
    return 6 if len(cfa) == 6 else 4


def _steps() -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs (u, v) of perpendicular-ish steps of equal length, shortest first."""
    vectors = [(y, x) for y, x in product(range(3), range(-2, 3)) if (y, x) > (0, 0)]
    pairs = [
        (u, v) for u, v in product(vectors, vectors) if u[0] * v[1] - u[1] * v[0] > 0 and u[0] ** 2 + u[1] ** 2 == v[0] ** 2 + v[1] ** 2
    ]
    lengths = {pair: sum(c**2 for step in pair for c in step) for pair in pairs}
    overlap = {(u, v): abs(u[0] * v[0] + u[1] * v[1]) for u, v in pairs}
    return sorted((pair for pair in pairs if lengths[pair] <= MAX_REACH + 2), key=lambda pair: (lengths[pair], overlap[pair]))


@lru_cache
def find_quads(cfa: Cfa) -> tuple[Quad, ...]:
    """Disjoint quads that tile the plane with the period of a block, most compact first.

    Bayer: two green, one red, one blue in 4 x 4, all sites used. X-Trans: four green, two red, two blue in 6 x 6,
    32 of 36 sites.
    """
    side, period = block_side(cfa), len(cfa)
    free, quads = np.ones((side, side), bool), []
    for u, v in _steps():
        for y, x in product(range(side), range(side)):
            sites = ((y, x), (y + u[0], x + u[1]), (y + v[0], x + v[1]), (y + u[0] + v[0], x + u[1] + v[1]))
            wrapped = {(row % side, column % side) for row, column in sites}
            colours = {cfa[row % period][column % period] for row, column in wrapped}
            if len(colours) == 1 and len(wrapped) == 4 and all(free[site] for site in wrapped):
                quads.append(Quad(colours.pop(), sites))
                for site in wrapped:
                    free[site] = False
    return tuple(quads)


def sites_of(signal: NDArray, quad: Quad, side: int) -> tuple[NDArray, ...]:
    """The four sites of every block's quad, each (rows of blocks, columns of blocks); blocks at the border are left out.

    `signal` (H, W); the first and last block of each axis serve as margin only.
    """
    rows, columns = signal.shape[0] // side - 2, signal.shape[1] // side - 2
    starts = [(side + y, side + x) for y, x in quad.sites]
    return tuple(signal[y : y + rows * side : side, x : x + columns * side : side] for y, x in starts)


def haar(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Orthonormal transform of four sites: scaled mean, two first differences, mixed second difference."""
    sums, differences = (a + b, c + d), (a - b, c - d)
    return (sums[0] + sums[1]) / 2, (sums[0] - sums[1]) / 2, (differences[0] + differences[1]) / 2, (differences[0] - differences[1]) / 2
