"""Demosaicers for clean frames: mosaic (H, W) and its colour filter array to linear RGB (3, H, W)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic.interpolation import bilinear, colour_difference
from lowlight_kedro.sensor.demosaic.malvar2004 import malvar2004
from lowlight_kedro.sensor.frame import Frame, balanced, normalise

Demosaicer = Callable[[NDArray, Cfa], NDArray]

DEMOSAICERS: dict[str, Demosaicer] = {
    "bilinear": bilinear,
    "colour_difference": colour_difference,
    "malvar2004": malvar2004,
}


def demosaic(frame: Frame, demosaicer: Demosaicer) -> NDArray[np.float32]:
    """White-balanced linear RGB (3, H, W) of a frame, 1 = white level of green, not clipped.

    Balanced first, so that a grey edge looks alike in all channels to the demosaicer.
    """
    return demosaicer(balanced(normalise(frame), frame.cfa, frame.white_balance), frame.cfa)
