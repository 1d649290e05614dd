"""One RGB pixel for each small block of the mosaic: nothing is interpolated, the image gets smaller."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa

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
