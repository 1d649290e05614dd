"""Where the sensor saturates, seen in its own photosites: makers' white levels are often wrong."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa

WhiteFrom = Literal["tag", "measured"]

OUTLIERS = 1e-5  # fraction of photosites that may lie above saturation: glitches, interpolated defects
LEAST_FRACTION, LEAST_COUNT = 2e-4, 50  # of a channel's photosites in the pile-up; fewer may be hot photosites
SHARPNESS = 16  # density of the pile-up over the density just below it
BELOW = 8  # how many widths of the pile-up count as just below
WIDTHS_PER_RANGE = 2048  # the pile-up is at most tag / 2048 wide: 8 DN of 14 bits


def _pile_up(values: NDArray, tag: float) -> float:
    """The value at which the photosites `values` (one channel, above tag / 2 only) pile up at their top, or nan."""
    width, total = max(2, round(tag / WIDTHS_PER_RANGE)), values.size
    lowest = int(tag / 2)
    counts = np.bincount(values[values >= lowest].astype(np.int64) - lowest)
    above = np.cumsum(counts[::-1])[::-1]
    enough = np.flatnonzero(above >= max(OUTLIERS * total, 20))
    if not enough.size or enough[-1] < width:
        return float("nan")
    top = int(enough[-1])
    spike = counts[top - width + 1 : top + 1]
    before = counts[max(top - width + 1 - BELOW * width, 0) : top - width + 1]
    dense = not before.size or spike.sum() / width > SHARPNESS * before.mean()
    if not dense or spike.sum() < max(LEAST_FRACTION * total, LEAST_COUNT):
        return float("nan")
    return float(lowest + top - width + 1 + int(spike.argmax()))


def saturation(mosaic_dn: NDArray[np.uint16], cfa: Cfa, tag: float) -> NDArray[np.float64]:
    """DN at which R, G and B pile up at the top of their histograms, (3,); nan where a channel does not.

    A pile-up is a sharp spike at the very top: at least 2e-4 of the channel's photosites within tag / 2048, sixteen
    times denser than the values just below. The smooth tail of an ordinary image, and anything below half the tag
    (a dark frame of few distinct values), is none. A saturation blurred over more than tag / 2048 is not recognised.
    """
    sites: dict[int, list[NDArray]] = {0: [], 1: [], 2: []}
    for row, channels in enumerate(cfa):
        for column, channel in enumerate(channels):
            sites[channel].append(mosaic_dn[row :: len(cfa), column :: len(channels)].ravel())
    return np.array([_pile_up(np.concatenate(values), tag) for values in sites.values()])


def measured_white(mosaic_dn: NDArray[np.uint16], cfa: Cfa, tag: float) -> tuple[float, WhiteFrom]:
    """The white level to use, DN, and where it comes from.

    The lowest saturation of the channels that show one, so that no saturated photosite counts as a measurement;
    `tag` where none does.
    """
    found = saturation(mosaic_dn, cfa, tag)
    if np.isnan(found).all() or np.nanmin(found) == tag:
        return float(tag), "tag"
    return float(np.nanmin(found)), "measured"
