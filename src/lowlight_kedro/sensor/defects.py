"""Photosites that do not tell the light: hot and dead ones, found in a single frame."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.noise import NoiseModel

REACH = 4  # photosites around one within which its colour's neighbours are looked for
OUTLYING = 8.0  # standard deviations of its noise by which a site must stand out of all its neighbours of its colour
TEXTURE = 2.0  # and by so many times what these neighbours differ among themselves: fine detail is no defect
SPREAD = 0.35  # of its excess, in the four sites beside it: a point of light of FWHM 1.3 pixels shows 0.76, a defect nothing
SURE = 2.0  # standard deviations of that sum by which it must be less
CLUTTERED = 4.0  # times what nine in ten sites within REACH, of all colours, differ from their own neighbours at most
STRIP = 252  # rows at a time, whole periods of Bayer and X-Trans


def neighbours(cfa: Cfa, row: int, column: int) -> list[tuple[int, int]]:
    """Offsets of the nearest eight or more sites of the same colour as the site at a place of the pattern, nearest first."""
    period, channel = len(cfa), cfa[row % len(cfa)][column % len(cfa)]
    around = [(dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1) if (dy, dx) != (0, 0)]
    same = [(dy, dx) for dy, dx in around if cfa[(row + dy) % period][(column + dx) % period] == channel]
    same.sort(key=lambda offset: offset[0] ** 2 + offset[1] ** 2)
    distance = same[7][0] ** 2 + same[7][1] ** 2
    return [(dy, dx) for dy, dx in same if dy**2 + dx**2 <= distance]


def _shifted(padded: NDArray, offset: tuple[int, int], shape: tuple[int, int]) -> NDArray:
    top, left = REACH + offset[0], REACH + offset[1]
    return padded[top : top + shape[0], left : left + shape[1]]


def outliers(signal: NDArray, cfa: Cfa, noise: NoiseModel) -> NDArray[np.bool_]:
    """Sites (H, W) that stand alone: hot (far above all neighbours of their colour, and the sites beside them know nothing of it) or dead.

    A site is hot if it exceeds the greatest of its nearest neighbours of its colour by `OUTLYING` standard deviations of the noise that
    it should have, and if what the four sites beside it, of other colours, have above their own surroundings is, for sure, less than a
    point of light would leave there. The optics spread a star's light over its neighbours; a defect keeps it to itself. Dead
    likewise, far below. Both must stand out of the detail around them too (`CLUTTERED`): a frame full of specks smaller than a lens draws
    has sites that look like defects.

    Args:
        signal: 0 = black, 1 = white, not white-balanced.
        noise: of `signal`.
    """
    found = np.zeros(signal.shape, bool)
    beyond = -(-2 * REACH // len(cfa)) * len(cfa)  # rows that a strip looks at besides, whole periods
    for top in range(0, len(signal), STRIP):
        first = max(top - beyond, 0)
        part = _outliers(signal[first : top + STRIP + beyond], cfa, noise)
        found[top : top + STRIP] = part[top - first : top - first + STRIP]
    return found


def _outliers(signal: NDArray, cfa: Cfa, noise: NoiseModel) -> NDArray[np.bool_]:
    """`outliers` of some rows that begin with the pattern."""
    shape, period = signal.shape, len(cfa)
    padded = np.pad(signal, REACH, mode="reflect")
    median, high, low = (np.empty(shape, np.float32) for _ in range(3))
    for row in range(period):
        for column in range(period):
            place = (slice(row, None, period), slice(column, None, period))
            ordered = np.sort([_shifted(padded, offset, shape)[place] for offset in neighbours(cfa, row, column)], axis=0)
            median[place], high[place], low[place] = ordered[len(ordered) // 2], ordered[-1], ordered[0]
    spread = np.sqrt(noise.variance(np.maximum(median, 0))).astype(np.float32)
    rest, sides = np.pad(signal - median, REACH, mode="reflect"), [(-1, 0), (1, 0), (0, -1), (0, 1)]
    beside = sum(_shifted(rest, offset, shape) for offset in sides)
    doubt = np.sqrt(sum(_shifted(np.pad(spread, REACH, mode="reflect"), offset, shape) ** 2 for offset in sides))
    above, below, least = signal - high, low - signal, OUTLYING * spread + TEXTURE * (high - low)
    hot = (above > least) & (beside + SURE * doubt < SPREAD * above)
    dead = (below > least) & (-beside + SURE * doubt < SPREAD * below) & (low < 1)  # blown neighbours do not tell how far they stand above
    return _out_of_clutter(hot | dead, np.maximum(above, below), rest)


def _out_of_clutter(found: NDArray[np.bool_], excess: NDArray, rest: NDArray) -> NDArray[np.bool_]:
    """Those of the sites found that stand out of the detail around them too, whatever its colour; `rest` is padded by REACH."""
    rows, columns = np.nonzero(found)
    side = 2 * REACH + 1
    around = np.abs(sliding_window_view(rest, (side, side))[rows, columns]).reshape(len(rows), side**2)
    clutter = np.quantile(np.delete(around, side**2 // 2, axis=1), 0.9, axis=1)
    kept = np.zeros_like(found)
    kept[rows, columns] = excess[rows, columns] > CLUTTERED * clutter
    return kept
