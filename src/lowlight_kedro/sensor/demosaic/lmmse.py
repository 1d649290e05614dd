"""Linear minimum mean square error demosaicing of any colour filter array, from a stated covariance of natural images.

Each missing colour is the best linear unbiased estimate from the measured sites around it: universal cokriging
(Matheron 1969; Wackernagel, "Multivariate Geostatistics", 2003, chapters 24 and 38), so no data are trained on. The model:

    Cov(colour a at p, colour b at q) = exp(-|p - q| / LENGTH) * (1 if a == b else CORRELATION)

with unknown means of the three colours and an unknown grey slope. Hence flat colours and grey ramps are exact, and
measured values stay. The filters depend on the phase in the pattern only: 4 sets for Bayer, 36 for X-Trans.

`directional_lmmse` does so twice, with distances across the rows and across the columns `STRETCH` times as long as
along them, and weighs the two results by how little they vary along their own direction; weighing by the variation of
colours and colour differences is the idea of Hirakawa and Parks 2005 (AHD) and of Pekkucuksen and Altunbasak 2010.
"""

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic.strips import Phases, in_strips, split, whole_periods

# Chosen on photographs that are not in the table of docs/demosaicing.md: `benchmarks/demosaicing.py --tune`.
LENGTH = 30.0  # pixels; beyond the window, its value hardly matters because the means are unknown
CORRELATION = 0.9  # of two colours at one place, in white-balanced linear camera RGB (sRGB itself is more colourful: 0.75)
REACH = (2, 2)  # sites up and down, left and right; more gain nothing for the isotropic model
REACH_ALONG_ROWS = (1, 3)  # more gain less than 0.1 dB
STRETCH = 2.25
SQUARINGS = 2  # of the variations: the two directions weigh by the fourth power
HALO = 2  # pixels around, whose variation counts
FLAT = np.float32(1e-30)  # where nothing varies both directions weigh the same

Reach = tuple[int, int]
Taps = list[tuple[int, int, float]]


def covariance(places: NDArray, colours: NDArray, other_places: NDArray, other_colours: NDArray, stretch: float) -> NDArray:
    """Covariance (n, m) of samples at `places` (n, 2), rows first, with those at `other_places` (m, 2).

    Distances down count sqrt(`stretch`) times, distances across 1 / sqrt(`stretch`) times.
    """
    apart = (places[:, None] - other_places[None]) * np.array([stretch**0.5, stretch**-0.5])
    alike = np.where(colours[:, None] == other_colours[None], 1.0, CORRELATION)
    return np.exp(-np.hypot(apart[..., 0], apart[..., 1]) / LENGTH) * alike


def _drift(places: NDArray, colours: NDArray) -> NDArray:
    """What is unknown of the mean (n, 5): a level for each colour and a grey slope down and across."""
    return np.concatenate([colours[:, None] == np.arange(3), places], axis=1).astype(float)


def _site_taps(cfa: Cfa, row: int, column: int, reach: Reach, stretch: float) -> list[Taps]:
    """Filters for R, G, B at one site of the pattern, as (row, column, weight) relative to the top left of its period."""
    offsets = np.asarray(list(product(*(range(-far, far + 1) for far in reach))))
    sites = np.add(offsets, (row, column))
    colours = np.asarray(cfa)[tuple((sites % len(cfa)).T)]
    drift, unknown = _drift(offsets, colours), 5
    centre, every = np.zeros((3, 2)), np.arange(3)
    system = np.block([
        [covariance(offsets, colours, offsets, colours, stretch), drift], [drift.T, np.zeros((unknown, unknown))],
    ])  # fmt: skip
    wanted = np.concatenate([covariance(offsets, colours, centre, every, stretch), _drift(centre, every).T])
    weights = np.linalg.solve(system, wanted)[: len(offsets)]
    return [[(int(y), int(x), float(np.float32(w))) for (y, x), w in zip(sites, weights[:, c], strict=True)] for c in range(3)]


@lru_cache(maxsize=64)
def filters(cfa: Cfa, reach: Reach, stretch: float = 1.0) -> dict[tuple[int, int], list[Taps]]:
    """The filters of every phase (row, column), for R, G, B."""
    phases = product(range(len(cfa)), repeat=2)
    return {(row, column): _site_taps(cfa, row, column, reach, stretch) for row, column in phases}


def _weighted(phases: Phases, taps: Taps) -> NDArray[np.float32]:
    """Sum of taps, one after the other in a fixed order: the same bits wherever a strip begins."""
    total, term = np.zeros(phases.shape, np.float32), np.empty(phases.shape, np.float32)
    for row, column, weight in taps:
        np.multiply(phases.at(row, column), np.float32(weight), out=term)
        total += term
    return total


def _estimate(phases: Phases, cfa: Cfa, reach: Reach, stretch: float = 1.0) -> NDArray[np.float32]:
    """RGB (3, h, w) inside the margin; measured values are copied."""
    period = len(cfa)
    rgb = np.empty((3, *(period * periods for periods in phases.shape)), np.float32)
    for (row, column), taps in filters(cfa, reach, stretch).items():
        for colour in range(3):
            measured = cfa[row][column] == colour
            rgb[colour, row::period, column::period] = phases.at(row, column) if measured else _weighted(phases, taps[colour])
    return rgb


def _running(values: NDArray, axis: int, count: int) -> NDArray[np.float32]:
    """Sums of `count` neighbours along `axis`, where all of them exist."""
    length = values.shape[axis] - count + 1
    parts = [values[(slice(None),) * axis + (slice(start, start + length),)] for start in range(count)]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def _variation(rgb: NDArray, axis: int) -> NDArray[np.float32]:
    """How much an estimate (3, h, w) and its colour differences vary along `axis`, HALO pixels inside its border."""
    step = np.diff(rgb, axis=axis + 1)
    total = np.abs(step[1])
    for colour in (0, 2):
        total += np.abs(step[colour])
        total += np.abs(step[colour] - step[1])
    return _running(_running(total, axis, 2 * HALO), 1 - axis, 2 * HALO + 1)


def _directional_strip(window: NDArray, cfa: Cfa, looked_at: int, margin: int) -> NDArray[np.float32]:
    phases = split(window, len(cfa), looked_at)
    extra = margin - HALO
    estimates, steadiness = [], []
    for axis, reach, stretch in ((1, REACH_ALONG_ROWS, STRETCH), (0, REACH_ALONG_ROWS[::-1], 1 / STRETCH)):
        rgb = _estimate(phases, cfa, reach, stretch)
        needed = rgb[:, extra : rgb.shape[1] - extra, extra : rgb.shape[2] - extra]
        variation = _variation(needed, axis)
        for _ in range(SQUARINGS):
            variation *= variation
        variation += FLAT
        estimates.append(needed[:, HALO:-HALO, HALO:-HALO])
        steadiness.append(variation)
    along_rows, along_columns = estimates
    fraction = steadiness[1] / (steadiness[0] + steadiness[1])
    result = along_rows - along_columns
    result *= fraction
    result += along_columns
    return result


def lmmse(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """Best linear unbiased estimate under the module's isotropic model; linear, measured values stay."""
    period = len(cfa)
    margin = whole_periods(max(REACH), period)
    return in_strips(mosaic, cfa, margin, lambda window: _estimate(split(window, period, margin), cfa, REACH))


def directional_lmmse(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """Blend of the estimates along rows and along columns by their steadiness; not linear, measured values stay."""
    looked_at, margin = whole_periods(max(REACH_ALONG_ROWS), len(cfa)), whole_periods(HALO, len(cfa))
    return in_strips(mosaic, cfa, looked_at + margin, lambda window: _directional_strip(window, cfa, looked_at, margin), tall=4)
