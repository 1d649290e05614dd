"""Photosites that do not tell the light: hot and dead ones, found in a single frame."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.noise import NoiseModel, photon

REACH = 4  # photosites around one within which its colour's neighbours are looked for
OUTLYING = 8.0  # standard deviations of its noise by which a site must stand out of all its neighbours of its colour
TEXTURE = 2.0  # and by so many times what these neighbours differ among themselves: fine detail is no defect
SPREAD = 0.35  # of its excess, in the four sites beside it: a point of light of FWHM 1.3 pixels shows 0.76, a defect nothing
SURE = 2.0  # standard deviations of that sum by which it must be less
CLUTTERED = 4.0  # times what nine in ten sites within REACH, of all colours, differ from their own neighbours at most
RANGE, OF_MEDIAN = 2.85, 1.2  # of eight draws, in standard deviations; variance of a site about the median of eight others
EDGES = np.array([3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0, 20.0])  # standard deviations between which warm sites are counted
CLEAR, MORE, OFTEN = 4.5, 3.0, 2.0  # and from which on they must be more than those below: by so many standard errors, so many times
LIKELY = 0.7  # to be the sensor's own, from which on a site counts as not measured
POINT, THREE = 0.5, 0.37  # of the excess, in four and in the darkest three of the sites beside a star of FWHM 1.3, on a green site
PAIRED = 10.0  # standard deviations from which on the brightest of the four does not count, because it may be a defect too
LEAST_ALONE, MOST_ALONE = 0.5, 0.95  # fraction of what stands out that is no light: below it nothing is believed, and one is never sure
SYMMETRIC = 1e-3  # skewness that makes no difference
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
    stands = tuple(np.empty(signal.shape, np.float32) for _ in range(3))
    beyond = -(-2 * REACH // len(cfa)) * len(cfa)  # rows that a strip looks at besides, whole periods
    for top in range(0, len(signal), STRIP):
        first = max(top - beyond, 0)
        parts = _outliers(signal[first : top + STRIP + beyond], cfa, noise)
        for whole, part in zip((found, *stands), parts, strict=True):
            whole[top : top + STRIP] = part[top - first : top - first + STRIP]
    return found | warm(*stands)


def warm(excess: NDArray, beside: NDArray, brightest: NDArray) -> NDArray[np.bool_]:
    """Sites (H, W) that are more likely too bright by themselves than noise or light, as far as the frame shows that it has such sites.

    Noise, and detail that the neighbours miss, have two sides, a dark current has one: at an excess of u standard deviations, sites above
    are warm by the fraction by which they are more than those at -u (a local false discovery rate, Efron 2004, its null the frame's other
    side). What lies beside those that stand out shows on average how many of them are points of light, and with that, what lies beside
    one site tells whether it is (Bayes' rule).

    Args:
        excess: over the median of the neighbours of the same colour, in units of what is expected of it (H, W).
        beside: sum over the four sites beside, in units of the noise of one (H, W).
        brightest: of these four, in the same units (H, W).
    """
    high = excess > CLEAR
    above, below = int(high.sum()), int((excess < -CLEAR).sum())
    if above - below <= MORE * np.sqrt(above + below) or above < OFTEN * below:
        return np.zeros(excess.shape, bool)
    alone = min(1 - float(np.median(beside[high] / np.minimum(excess[high], EDGES[-1]))) / POINT, MOST_ALONE)
    if alone < LEAST_ALONE:
        return np.zeros(excess.shape, bool)
    counts = [np.histogram(np.minimum(side, EDGES[-1]), EDGES)[0] for side in (excess, -excess)]
    rate = np.maximum.accumulate(np.maximum(1 - (counts[1] + 1) / (counts[0] + 1), 0))
    rows, columns = np.nonzero(excess >= EDGES[0])
    seen = np.minimum(excess[rows, columns], EDGES[-1])
    light = _light(seen, beside[rows, columns], brightest[rows, columns])
    known = rate[np.minimum(np.searchsorted(EDGES, seen, "right"), len(rate)) - 1]
    likely = known * alone / (alone + (1 - alone) * light)
    found = np.zeros(excess.shape, bool)
    found[rows, columns] = likely > LIKELY
    return found


def _light(excess: NDArray, beside: NDArray, brightest: NDArray) -> NDArray:
    """Likelihood of what lies beside a point of light over that of what lies beside a defect."""
    sites = np.where(excess < PAIRED, 4, 3)
    expected = np.where(excess < PAIRED, POINT, THREE) * excess
    shown = np.where(excess < PAIRED, beside, beside - brightest)
    return np.exp(np.minimum(expected * (shown - expected / 2) / sites, 50))


def _outliers(signal: NDArray, cfa: Cfa, noise: NoiseModel) -> tuple[NDArray[np.bool_], NDArray, NDArray, NDArray]:
    """Hot and dead sites of some rows that begin with the pattern; then what `warm` asks for: excess, beside, brightest."""
    shape, period = signal.shape, len(cfa)
    padded = np.pad(signal, REACH, mode="reflect")
    median, high, low = (np.empty(shape, np.float32) for _ in range(3))
    for row in range(period):
        for column in range(period):
            place = (slice(row, None, period), slice(column, None, period))
            ordered = np.sort([_shifted(padded, offset, shape)[place] for offset in neighbours(cfa, row, column)], axis=0)
            median[place], high[place], low[place] = ordered[len(ordered) // 2], ordered[-1], ordered[0]
    spread = np.sqrt(noise.variance(_expected(median, noise))).astype(np.float32)
    rest, sides = np.pad(signal - median, REACH, mode="reflect"), [(-1, 0), (1, 0), (0, -1), (0, 1)]
    each = [_shifted(rest, offset, shape) for offset in sides]
    beside = sum(each)
    doubt = np.sqrt(sum(_shifted(np.pad(spread, REACH, mode="reflect"), offset, shape) ** 2 for offset in sides))
    above, below, least = signal - high, low - signal, OUTLYING * spread + TEXTURE * (high - low)
    hot = (above > least) & (beside + SURE * doubt < SPREAD * above)
    dead = (below > least) & (-beside + SURE * doubt < SPREAD * below) & (high < 1)  # blown neighbours do not tell how far they stand above
    texture = np.maximum(np.square((high - low) / RANGE) - np.square(spread), 0)
    excess = _normal_excess(signal, median, noise) / np.sqrt(OF_MEDIAN + texture / np.square(spread))
    return _out_of_clutter(hot | dead, np.maximum(above, below), rest), excess, beside / spread, np.maximum.reduce(each) / spread


def _expected(median: NDArray, noise: NoiseModel) -> NDArray:
    """The light that the noise of a site is told by: the median of few counts lies below their mean, by less than a photon."""
    return np.maximum(median, 0) + photon(noise)


def _normal_excess(signal: NDArray, median: NDArray, noise: NoiseModel) -> NDArray:
    """signal - median as a standard normal variable has it: of few photons, many are no rare chance.

    Poisson noise of gain g has the third cumulant g^2 s at signal s, its gamma distribution of the same skewness becomes normal by a cube
    root (Wilson and Hilferty 1931).
    """
    level = _expected(median, noise)
    skewness = np.maximum(photon(noise) ** 2 * level / noise.variance(level) ** 1.5, SYMMETRIC)
    straight = (signal - median) / np.sqrt(noise.variance(level))
    return 6 / skewness * (np.cbrt(np.maximum(1 + skewness * straight / 2, 0)) - 1 + skewness**2 / 36)


def _out_of_clutter(found: NDArray[np.bool_], excess: NDArray, rest: NDArray) -> NDArray[np.bool_]:
    """Those of the sites found that stand out of the detail around them too, whatever its colour; `rest` is padded by REACH."""
    rows, columns = np.nonzero(found)
    side = 2 * REACH + 1
    around = np.abs(sliding_window_view(rest, (side, side))[rows, columns]).reshape(len(rows), side**2)
    clutter = np.quantile(np.delete(around, side**2 // 2, axis=1), 0.9, axis=1)
    kept = np.zeros_like(found)
    kept[rows, columns] = excess[rows, columns] > CLUTTERED * clutter
    return kept
