"""One decoded raw and its normalisation, shared by training and inference."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa, tile_pattern


@dataclass(frozen=True)
class Frame:
    """The visible area of one raw file, in digital numbers (DN), with what is needed to read it.

    Attributes:
        mosaic_dn: (H, W) photosites as recorded.
        cfa: colour filter pattern, phase 0 at the top left.
        black_level: DN of no light, a pattern with the period of `cfa`.
        white_level: DN of saturation.
        exposure_s: exposure time, seconds; nan where the file does not say.
        iso: ISO speed; nan where the file does not say.
        camera: maker and model.
        white_balance: as-shot multipliers of R, G, B, green = 1.
        camera_to_srgb: (3, 3) matrix from white-balanced camera RGB to linear sRGB, rows sum to 1.
    """

    mosaic_dn: NDArray[np.uint16]
    cfa: Cfa
    black_level: NDArray[np.float32]
    white_level: float
    exposure_s: float
    iso: float
    camera: str
    white_balance: tuple[float, float, float]
    camera_to_srgb: NDArray[np.float32]


def _lines(height: int, period: int) -> Iterator[tuple[int, slice]]:
    """Rows of an image by phase, a few at a time: what one step writes is still in cache for the next."""
    for top in range(0, height, 8 * period):
        for phase in range(min(period, height - top)):
            yield phase, slice(top + phase, min(top + 8 * period, height), period)


def normalise(frame: Frame) -> NDArray[np.float32]:
    """Signal (H, W) of each photosite: 0 = black level, 1 = white level. Not clipped: noise falls below 0, and must.

    s = (DN - black) / (white - black)
    """
    height, width = frame.mosaic_dn.shape
    period = len(frame.black_level)
    black = tile_pattern(frame.black_level.astype(np.float32), (period, width))
    span = np.float32(frame.white_level) - black
    signal = np.empty((height, width), np.float32)
    for phase, rows in _lines(height, period):
        np.subtract(frame.mosaic_dn[rows], black[phase], out=signal[rows])
        signal[rows] /= span[phase]
    return signal


def balanced(signal: NDArray, cfa: Cfa, white_balance: tuple[float, float, float]) -> NDArray[np.float32]:
    """Each photosite of `signal` (H, W) times the white-balance gain of its channel."""
    gains = tile_pattern(np.asarray(white_balance, np.float32)[np.asarray(cfa)], (len(cfa), signal.shape[1]))
    result = np.empty(signal.shape, np.float32)
    for phase, rows in _lines(len(signal), len(cfa)):
        np.multiply(signal[rows], gains[phase], out=result[rows], casting="same_kind")
    return result


def crop(frame: Frame, top: int, left: int, height: int, width: int) -> Frame:
    """A part of the frame; `top` and `left` move up to the start of a colour filter period.

    Raises:
        ValueError: the part does not lie inside the frame.
    """
    period = len(frame.cfa)
    top, left = top - top % period, left - left % period
    rows, columns = frame.mosaic_dn.shape
    if min(top, left) < 0 or min(height, width) < 1 or top + height > rows or left + width > columns:
        raise ValueError(f"crop [{top}, {left}, {height}, {width}] must lie inside the frame of {rows} x {columns}")
    return replace(frame, mosaic_dn=frame.mosaic_dn[top : top + height, left : left + width])
