"""What frames without light tell: black level error, row noise, tails."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.blocks import contrasts, inliers
from lowlight_kedro.sensor.calibration.tails import tail_shape
from lowlight_kedro.sensor.cfa import Cfa, tile_pattern

CLIPPED_SHARE = 0.01  # share of photosites at the lowest value from which the noise is cut off at black


@dataclass(frozen=True)
class Dark:
    """Units of white - black; `*_error` one standard error; `contrast` (n, H, W) the noise alone, row noise included."""

    black: tuple[float, float, float]
    black_error: tuple[float, float, float]
    row_noise: float
    row_noise_error: float
    tail: tuple[float, float] | None
    contrast: NDArray


def clipped_at_black(frames: NDArray) -> bool:
    """Whether the raws cut their dark noise off: over 1 % of all photosites hold exactly the lowest value.

    Cameras that subtract their black level before they write the file do so; half of the noise is lost then.
    """
    lowest = frames.min()
    return bool((frames == lowest).mean() > CLIPPED_SHARE)


def black_levels(darks: NDArray, cfa: Cfa, read_noise: float, row_noise: float) -> tuple[NDArray, NDArray]:
    """Mean of `darks` (n, H, W) per channel, hot photosites left out, and its standard error.

    The error is that of read and row noise, or the scatter of the frames' own means where that is more.
    """
    mean = darks.mean(axis=0)
    channel = tile_pattern(np.asarray(cfa), mean.shape)
    values, errors = np.zeros(3), np.zeros(3)
    for index in range(3):
        sites = channel == index
        keep = np.zeros(mean.shape, bool)
        keep[sites] = inliers(mean[sites][None], 6.0)[0]
        per_frame = np.array([dark[keep].mean() for dark in darks])
        noise = np.sqrt(read_noise**2 / keep.sum() + row_noise**2 / keep.any(axis=1).sum()) / np.sqrt(len(darks))
        scatter = per_frame.std(ddof=1) / np.sqrt(len(darks)) if len(darks) > 1 else 0.0
        values[index], errors[index] = per_frame.mean(), max(noise, scatter)
    return values, errors


def row_variance(contrast: NDArray, read_noise: float) -> tuple[float, float]:
    """Variance of row offsets in `contrast` (n, H, W) and its standard error: var(row mean) - read_noise**2 / W.

    Slow drifts from top to bottom count as row noise; an offset of a whole frame does not. Negative where the rows
    scatter less than read noise lets expect.
    """
    keep = inliers(contrast)
    count = keep.sum(axis=2)
    rows = (contrast * keep).sum(axis=2) / np.maximum(count, 1)
    degrees = rows.size - len(rows)
    total = float(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum() / degrees)
    return total - read_noise**2 / float(count.mean()), total * np.sqrt(2 / degrees)


def measure_darks(darks: NDArray, cfa: Cfa, read_noise: float, tails: bool) -> Dark:
    """All of it from `darks` (n, H, W) and the read noise found in them.

    With one frame there is nothing to compare: its fixed patterns count as row noise and tails.
    """
    single = len(darks) == 1
    contrast = darks - np.median(darks) if single else contrasts(darks)
    row, row_error = row_variance(contrast, read_noise)
    black, black_error = black_levels(darks, cfa, read_noise, np.sqrt(max(row, 0.0)))
    halves = contrast if single else np.stack([(a - b) / np.sqrt(2) for a, b in zip(darks[0::2], darks[1::2], strict=False)])
    tail = None if not tails else tail_shape(halves - halves.mean(axis=2, keepdims=True), of_contrast=not single)
    row_noise = float(np.sqrt(max(row, 0.0)))
    error = float(row_error / (2 * np.sqrt(max(row, row_error))))
    return Dark(tuple(black.tolist()), tuple(black_error.tolist()), row_noise, error, tail, contrast)
