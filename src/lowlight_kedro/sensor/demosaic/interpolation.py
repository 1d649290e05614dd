"""Demosaicers that interpolate: for any CFA, knowing only where each channel was measured, and for Bayer corrected by gradients."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, masks
from lowlight_kedro.sensor.demosaic.strips import Phases, in_strips, split

NARROW = np.array([1, 2, 1], np.float32)
WIDE = np.array([1, 4, 6, 4, 1], np.float32)
LAST_RESORT = np.float32(1e-4)


def _spread(plane: NDArray) -> NDArray:
    """Sum over neighbours: a 3x3 bell, and a 5x5 one so faint that it counts only where 3x3 is empty."""
    from scipy.ndimage import convolve1d  # slow to import

    narrow, wide = (
        convolve1d(convolve1d(plane, kernel, axis=-1, mode="mirror"), kernel, axis=-2, mode="mirror") for kernel in (NARROW, WIDE)
    )
    return narrow + LAST_RESORT * wide


def _fill(values: NDArray, mask: NDArray) -> NDArray:
    """Normalised convolution (Knutsson and Westin 1993): weighted mean of the measured neighbours.

    Measured sites keep their value.
    """
    weight = mask.astype(np.float32)
    return np.where(mask, values, _spread(values * weight) / _spread(weight))


def bilinear(mosaic: NDArray, cfa: Cfa) -> NDArray:
    """Each channel from its own neighbours; for a Bayer pattern this is bilinear interpolation."""
    return np.stack([_fill(mosaic, mask) for mask in masks(cfa, mosaic.shape)]).astype(np.float32)


def colour_difference(mosaic: NDArray, cfa: Cfa) -> NDArray:
    """Green from its neighbours, then the smooth differences R - G and B - G from theirs.

    Colour differences vary less than colours (Adams 1995), so edges of green sharpen red and blue.
    """
    red, green, blue = masks(cfa, mosaic.shape)
    full_green = _fill(mosaic, green)
    difference = mosaic - full_green
    planes = [full_green + _fill(difference, red), full_green, full_green + _fill(difference, blue)]
    return np.stack(planes).astype(np.float32)


# Sites on a side of the smallest block that holds all three colours wherever it lies, by the period of the pattern.
BLOCK = {2: 2, 6: 3}


def superpixel(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """Mean of each colour in each block: (3, H // 2, W // 2) for Bayer, (3, H // 3, W // 3) for X-Trans.

    The colours of a pixel lie up to a block apart. Rows and columns that fill no block are left out.
    """
    block = BLOCK[len(cfa)]
    height, width = (side // block * block for side in mosaic.shape)
    rgb = np.empty((3, height // block, width // block), np.float32)
    colours = np.asarray(cfa)
    for top in range(0, len(cfa), block):
        for left in range(0, len(cfa), block):
            here = rgb[:, top // block :: len(cfa) // block, left // block :: len(cfa) // block]
            _average(mosaic[top:height, left:width], colours[top : top + block, left : left + block], len(cfa), here)
    return rgb


def _average(mosaic: NDArray, colours: NDArray, period: int, means: NDArray) -> None:
    """Into `means` (3, h, w): of the sites of each colour in the block that opens each period of `mosaic`."""
    rows, columns = means.shape[1:]
    for colour, mean in enumerate(means):
        sites = np.argwhere(colours == colour)
        mean[...] = 0
        for row, column in sites:
            mean += mosaic[row::period, column::period][:rows, :columns]
        mean /= np.float32(len(sites))


superpixel.scale = BLOCK  # type: ignore[attr-defined]


REACH = 2  # of `malvar2004`


def _pair(phases: Phases, row: int, column: int, down: int, across: int) -> NDArray[np.float32]:
    """Sum of the two neighbours on opposite sides."""
    return phases.at(row - down, column - across) + phases.at(row + down, column + across)


def _laplacian(phases: Phases, row: int, column: int, others: NDArray) -> NDArray[np.float32]:
    """Four times the measured value less four `others` of the same channel."""
    difference = phases.at(row, column) * np.float32(4)
    difference -= others
    return difference


def _at_red_or_blue(phases: Phases, row: int, column: int) -> tuple[NDArray, NDArray]:
    """Green, and the one of red and blue that is not measured here."""
    same = _pair(phases, row, column, 2, 0)
    same += _pair(phases, row, column, 0, 2)
    laplacian = _laplacian(phases, row, column, same)
    green = _pair(phases, row, column, 1, 0)
    green += _pair(phases, row, column, 0, 1)
    green *= np.float32(1 / 4)
    opposite = _pair(phases, row, column, 1, 1)
    opposite += _pair(phases, row, column, 1, -1)
    opposite *= np.float32(1 / 4)
    laplacian *= np.float32(1 / 8)
    green += laplacian
    laplacian *= np.float32(3 / 2)
    opposite += laplacian
    return green, opposite


def _at_green(phases: Phases, row: int, column: int) -> tuple[NDArray, NDArray]:
    """The colour that lies left and right, and the one that lies above and below."""
    diagonal = _pair(phases, row, column, 1, 1)
    diagonal += _pair(phases, row, column, 1, -1)
    laplacian = _laplacian(phases, row, column, diagonal)
    laplacian += phases.at(row, column)
    across, down = _pair(phases, row, column, 0, 2), _pair(phases, row, column, 2, 0)
    estimates = []
    for near, along, against in ((_pair(phases, row, column, 0, 1), across, down), (_pair(phases, row, column, 1, 0), down, across)):
        curvature = against * np.float32(1 / 2)
        curvature -= along
        curvature += laplacian
        curvature *= np.float32(1 / 8)
        near *= np.float32(1 / 2)
        near += curvature
        estimates.append(near)
    return estimates[0], estimates[1]


def _strip(window: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    phases = split(window, 2, REACH)
    rgb = np.empty((3, *(2 * periods for periods in phases.shape)), np.float32)
    for row in (0, 1):
        for column in (0, 1):
            here = rgb[:, row::2, column::2]
            own = cfa[row][column]
            if own == 1:
                first, second = cfa[row][1 - column], cfa[1 - row][column]
                here[first], here[second] = _at_green(phases, row, column)
            else:
                here[1], here[2 - own] = _at_red_or_blue(phases, row, column)
            here[own] = phases.at(row, column)
    return rgb


def malvar2004(mosaic: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """Malvar, He and Cutler 2004: gradient-corrected linear interpolation for Bayer mosaics, of any of the four phases.

    "High-quality linear interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004, figure 2. Each estimate is
    the bilinear one plus a fraction of the Laplacian of the measured channel: 1/2 for green, 5/8 for red and blue at green sites,
    3/4 for red at blue sites and blue at red ones. Written as differences, so that a flat colour stays exact to the bit. Measured
    values stay, the border is mirrored.

    Raises:
        ValueError: the pattern is not 2x2.
    """
    if len(cfa) != 2:
        raise ValueError("malvar2004 needs a 2x2 Bayer pattern; choose lmmse or directional_lmmse for X-Trans")
    return in_strips(mosaic, cfa, REACH, lambda window: _strip(window, cfa))
