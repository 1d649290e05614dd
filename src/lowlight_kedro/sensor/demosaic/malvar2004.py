"""Malvar, He and Cutler 2004: gradient-corrected linear interpolation for Bayer mosaics.

"High-quality linear interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004, figure 2.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from lowlight_kedro.sensor.cfa import Cfa, masks

# Green at a red or blue site.
GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
# Red or blue at a green site whose left and right neighbours have that colour.
ALONG_ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
# Red at a blue site, and blue at a red one.
DIAGONAL = np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8


def malvar2004(mosaic: NDArray, cfa: Cfa) -> NDArray:
    """Demosaic any of the four Bayer phases.

    Raises:
        ValueError: the pattern is not 2x2.
    """
    if len(cfa) != 2:
        raise ValueError("malvar2004 needs a 2x2 Bayer pattern; choose colour_difference for X-Trans")
    along_row, along_column, diagonal, green_kernel = (
        correlate(mosaic, kernel.astype(np.float32), mode="mirror") for kernel in (ALONG_ROW, ALONG_ROW.T, DIAGONAL, GREEN)
    )
    red, green, blue = masks(cfa, mosaic.shape)
    planes = [np.where(green, mosaic, green_kernel)]
    for own, other in ((red, blue), (blue, red)):
        in_row = green & own.any(axis=1, keepdims=True)
        at_green = np.where(in_row, along_row, along_column)
        planes.append(np.where(own, mosaic, np.where(other, diagonal, at_green)))
    return np.stack([planes[1], planes[0], planes[2]]).astype(np.float32)
