"""Demosaicers for clean frames: mosaic (H, W) and its colour filter array to linear RGB (3, H, W)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, masks
from lowlight_kedro.sensor.demosaic.interpolation import bilinear, colour_difference
from lowlight_kedro.sensor.demosaic.malvar2004 import malvar2004

Demosaicer = Callable[[NDArray, Cfa], NDArray]

DEMOSAICERS: dict[str, Demosaicer] = {
    "bilinear": bilinear,
    "colour_difference": colour_difference,
    "malvar2004": malvar2004,
}


def demosaic(mosaic: NDArray, cfa: Cfa, white_balance: tuple[float, float, float], demosaicer: Demosaicer) -> NDArray:
    """Demosaic in white-balanced values, where a grey edge looks alike in all channels, and undo the balance.

    Args:
        mosaic: (H, W) signal, linear.
        white_balance: multipliers of R, G, B.

    Returns:
        (3, H, W) float32 linear camera RGB in the units of `mosaic`.
    """
    gains = np.asarray(white_balance, np.float32)[:, None, None]
    per_site = (masks(cfa, mosaic.shape) * gains).sum(axis=0)
    return demosaicer((mosaic * per_site).astype(np.float32), cfa) / gains
