"""The signal ratio of two aligned exposures, and how much they differ by noise alone, measured on the pair itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.alignment.registration import binned, high_pass, robust_sd

BLOCK = 8  # superpixels
LEVELS = 12


def noise_variance(difference: NDArray, light: NDArray, usable: NDArray[np.bool_]) -> NDArray:
    """Variance of white noise in `difference` (H, W) as a function of `light` (H, W), per pixel.

    Blocks are sorted by light into a dozen levels of equal count; of each level the half with the smoothest light counts, and
    the median of their high-pass power is its variance. Linear between levels, constant beyond.

    Args:
        difference: short exposure minus scaled long one.
        light: the clean image.
        usable: pixels without saturation.

    Returns:
        (H, W); nan everywhere where no block is usable.
    """
    inside = binned(usable[:-1, :-1].astype(np.float32), BLOCK) == 1
    level = binned(light[:-1, :-1], BLOCK)[inside]
    power, texture = (binned(high_pass(part) ** 2, BLOCK)[inside] for part in (difference, light))
    if not level.size:
        return np.full(light.shape, np.nan, np.float32)
    places, variances = [], []
    for members in np.array_split(level.argsort(kind="stable"), min(LEVELS, max(1, level.size // 8))):
        smooth = members[texture[members] <= np.median(texture[members])]
        places.append(np.median(level[smooth]))
        variances.append(np.median(power[smooth]))
    return np.interp(light, places, variances).astype(np.float32)


ROUNDS = 15
PARTS = 8
BIWEIGHT = 4.685  # 95 % efficiency under normal errors (Beaton and Tukey 1974)
SLACK = 0.5  # superpixels by which the aligned frames may still be off


@dataclass(frozen=True)
class Ratio:
    """short = long / value + offset.

    Attributes:
        value: signal of the long exposure over that of the short one.
        standard_error: of `value`.
        offset: what the short exposure reads in the dark, units of white - black (an error of its black level).
        blocks: on how many blocks it was measured.
    """

    value: float
    standard_error: float
    offset: float
    blocks: int


def _weighted_line(x: NDArray, y: NDArray, weight: NDArray) -> tuple[float, float, float]:
    """Slope, intercept and the slope's variance per unit residual variance."""
    total = weight.sum()
    mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
    spread = (weight * (x - mean_x) ** 2).sum()
    slope = (weight * (x - mean_x) * (y - mean_y)).sum() / spread
    return float(slope), float(mean_y - slope * mean_x), float(1 / spread)


def robust_line(x: NDArray, y: NDArray, variance: NDArray) -> tuple[float, float, float]:
    """Slope, intercept and standard error of the slope of y = slope x + intercept, outliers ignored (biweight).

    Args:
        variance: of `y`, up to a common factor, which the residuals tell.
    """
    weight = np.ones_like(x)
    for _ in range(ROUNDS):
        slope, intercept, unit = _weighted_line(x, y, weight / variance)
        scaled = (y - slope * x - intercept) / np.sqrt(variance)
        scale = max(robust_sd(scaled), 1e-12)
        weight = np.clip(1 - (scaled / (BIWEIGHT * scale)) ** 2, 0, None) ** 2
    return slope, intercept, float(scale * np.sqrt(unit))


def jackknife(x: NDArray, y: NDArray, variance: NDArray) -> float:
    """Standard error of the slope by leaving out each of PARTS strips of the frame in turn (Tukey 1958).

    Blocks err together (shutter, flare, clouds), which the scatter about the line does not tell.
    """
    strips = np.arange(x.size) * PARTS // x.size
    slopes = [robust_line(*(part[strips != strip] for part in (x, y, variance)))[0] for strip in range(PARTS)]
    return float(np.sqrt((PARTS - 1) * np.var(slopes)))


def _roughness(blocks: NDArray) -> NDArray:
    """Change of block means per superpixel: the largest difference to a neighbour over the block's side."""
    padded = np.pad(blocks, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.max([np.abs(neighbour - blocks) for neighbour in neighbours], axis=0) / BLOCK


def measure_ratio(short: NDArray, long: NDArray, usable: NDArray[np.bool_], expected: float) -> Ratio | None:
    """The ratio by a robust line through block means of two aligned images (H, W), 0 = black.

    A line, not a quotient: an error of the black level, which is as large as the signal of an x300 exposure, moves
    the intercept and not the slope. Blocks are weighted by their noise and by what half a superpixel of
    misalignment would do, so smooth, well exposed areas decide.

    Args:
        usable: pixels saturated in neither image.
        expected: the ratio of the headers; used for the weights only.

    Returns:
        None where fewer than 12 blocks are usable or all are equally bright.
    """
    inside = binned(usable.astype(np.float32), BLOCK) == 1
    if inside.sum() < 12:
        return None
    noise = binned(noise_variance(short - long / np.float32(expected), long, usable), BLOCK) / BLOCK**2
    dark, bright = binned(short, BLOCK), binned(long, BLOCK)
    variance = (noise + (SLACK * _roughness(bright) / expected) ** 2)[inside].astype(float)
    x, y = bright[inside].astype(float), dark[inside].astype(float)
    floor = 1e-12 * max(float(np.square(y).mean()), 1e-30)
    if not np.ptp(x) > 0:
        return None
    slope, offset, error = robust_line(x, y, variance + floor)
    error = max(error, jackknife(x, y, variance + floor))
    if not slope > 0:
        return Ratio(float("inf"), float("inf"), offset, int(inside.sum()))
    return Ratio(1 / slope, error / slope**2, offset, int(inside.sum()))
