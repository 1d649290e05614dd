"""Demosaicers for clean frames: white-balanced linear mosaic (H, W) and its colour filter array to linear RGB (3, H, W).

A demosaicer that gives a smaller image says so in its attribute `scale`: photosites per pixel along a side, by the period
of the pattern, e.g. `{2: 2, 6: 3}`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.demosaic.interpolation import bilinear, colour_difference, malvar2004, superpixel
from lowlight_kedro.sensor.demosaic.lmmse import directional_lmmse, lmmse
from lowlight_kedro.sensor.frame import Frame, balanced, normalise

Demosaicer = Callable[[NDArray, Cfa], NDArray]

DEMOSAICERS: dict[str, Demosaicer] = {
    "bilinear": bilinear,
    "colour_difference": colour_difference,
    "directional_lmmse": directional_lmmse,
    "lmmse": lmmse,
    "malvar2004": malvar2004,
    "superpixel": superpixel,
}


def scale_of(demosaicer: Demosaicer, cfa: Cfa) -> int:
    """Photosites per pixel of the result along a side; 1 where the demosaicer declares nothing."""
    return getattr(demosaicer, "scale", {}).get(len(cfa), 1)


def demosaic(frame: Frame, demosaicer: Demosaicer) -> NDArray[np.float32]:
    """White-balanced linear RGB (3, H, W) of a frame, 1 = white level of green, not clipped.

    Balanced first, so that a grey edge looks alike in all channels to the demosaicer. The sides are those of the
    mosaic divided by `scale_of(demosaicer, frame.cfa)`, rounded down.
    """
    return demosaicer(balanced(normalise(frame), frame.cfa, frame.white_balance, frame.shading), frame.cfa)
