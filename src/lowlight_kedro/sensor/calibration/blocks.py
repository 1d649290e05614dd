"""Cutting a mosaic into blocks of photosites that all see the same colour at the same place of the filter pattern."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import Cfa


def phase_blocks(image: NDArray, cfa: Cfa, side: int) -> NDArray:
    """Blocks (rows, columns, phases, side, side) of an `image` (H, W): `side` periods each way, cut per place in the period.

    What does not fill a block at the bottom and at the right is left out.

    Raises:
        ValueError: the image holds no whole block.
    """
    period = len(cfa)
    block = side * period
    rows, columns = image.shape[0] // block, image.shape[1] // block
    if not rows or not columns:
        raise ValueError(f"a frame must hold at least one block of {block} x {block} photosites, got {image.shape[0]} x {image.shape[1]}")
    cut = image[: rows * block, : columns * block].reshape(rows, side, period, columns, side, period)
    return cut.transpose(0, 3, 2, 5, 1, 4).reshape(rows, columns, period**2, side, side)


def phase_channels(cfa: Cfa) -> NDArray[np.int_]:
    """The channel (0 R, 1 G, 2 B) of each phase of `phase_blocks`."""
    return np.asarray(cfa).ravel()


def contrasts(frames: NDArray) -> NDArray:
    """n - 1 mixtures (n - 1, H, W) of n equal exposures (n, H, W) without anything they share, each with the noise of one exposure.

    Helmert's orthonormal contrasts: for two frames (a - b) / sqrt(2). Light, its fall-off and fixed patterns cancel.
    """
    count = np.arange(1, len(frames)).reshape(-1, 1, 1)
    return (np.cumsum(frames[:-1], axis=0) / count - frames[1:]) * np.sqrt(count / (count + 1))


def inliers(values: NDArray, reach: float = 8.0) -> NDArray[np.bool_]:
    """Which `values` lie within `reach` standard deviations of the median over the last two axes.

    The standard deviation is that of the inner 95 %: hot photosites, up to some percent, do not move it, and
    coarse rounding does not make it 0.
    """
    flat = values.reshape(*values.shape[:-2], -1)
    offset = np.abs(flat - np.median(flat, axis=-1, keepdims=True))
    scale = np.quantile(offset, 0.95, axis=-1, keepdims=True) / 1.96
    return (offset <= reach * scale).reshape(values.shape)


def green_squares(image: NDArray, cfa: Cfa) -> NDArray:
    """Only the 2 x 2 squares of green of an X-Trans mosaic, four per period of 6 x 6, side by side: (2/3 H, 2/3 W).

    Neighbours of one phase lie 6 photosites apart in X-Trans, too far for most scenes; these lie side by side.

    Raises:
        ValueError: the pattern has no such squares.
    """
    places = np.array([0, 1, 3, 4])
    green = np.asarray(cfa) == 1
    for top in range(3):
        for left in range(3):
            if np.roll(green, (-top, -left), (0, 1))[np.ix_(places, places)].all():
                rows = (top + np.arange(0, image.shape[0] - top - 5, 6)[:, None] + places).ravel()
                columns = (left + np.arange(0, image.shape[1] - left - 5, 6)[:, None] + places).ravel()
                return image[np.ix_(rows, columns)]
    raise ValueError(f"a pattern of 6 x 6 must have four 2 x 2 squares of green as X-Trans has, got {cfa}")
