"""The input as it is, only brighter: what a restored frame is shown beside."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.evaluation.pictures import most_detailed
from lowlight_kedro.pipelines.preprocessing.options import DemosaicerOptions
from lowlight_kedro.sensor.frame import Frame, balanced
from lowlight_kedro.sensor.render import block_means

Box = tuple[slice, slice, slice]


def scaled_light(signal: NDArray, frame: Frame, ratio: float, demosaicer: DemosaicerOptions) -> NDArray[np.float32]:
    """White-balanced linear RGB (3, H, W) of `ratio` times the signal, demosaiced, noise and all."""
    light = balanced(signal * np.float32(ratio), frame.cfa, frame.white_balance, frame.shading)
    return demosaicer.chosen(frame.cfa)(light, frame.cfa)


def detailed_box(light: NDArray, shown_side: int, side: int) -> Box | None:
    """Where `light` (3, H, W) holds most detail, a square of `side` pixels or less; None where all its pixels are shown.

    `shown_side` are the pixels along the longer side of the picture that is shown.
    """
    if max(light.shape[1:]) <= shown_side:
        return None
    step = -(-max(light.shape[1:]) // shown_side)
    places = most_detailed(np.sqrt(np.clip(block_means(light, step), 0, 1)), max(side // step, 2))
    top, left = (max(min(step * place, length - side), 0) for place, length in zip(places, light.shape[1:], strict=True))
    return slice(None), slice(top, top + side), slice(left, left + side)
