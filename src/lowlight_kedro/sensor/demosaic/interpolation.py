"""Demosaicers for any CFA that know nothing of the pattern but where each channel was measured."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, masks

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
