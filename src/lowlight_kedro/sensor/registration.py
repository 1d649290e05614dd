"""The shift between two mosaics of one scene, one of them drowned in noise, and the ratio of their signals.

Mosaics are compared in superpixels that all hold the same colours, and moved by shifts that keep them in phase. How much the aligned
exposures differ by noise alone is measured on the pair itself.

"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lowlight_kedro.sensor.cfa import Cfa


def superpixel_size(cfa: Cfa) -> int:
    """Side of the smallest squares that all hold the same number of each colour: 2 for Bayer, 3 for X-Trans."""
    period = len(cfa)
    for side in (side for side in range(1, period) if period % side == 0):
        starts = range(0, period, side)
        counts = [Counter(cfa[top + y][left + x] for y in range(side) for x in range(side)) for top in starts for left in starts]
        if all(count == counts[0] for count in counts):
            return side
    return period


def phase_keeping_shifts(cfa: Cfa) -> NDArray[np.int64]:
    """All (dy, dx) inside one period that map the pattern onto itself: (0, 0) for Bayer, also (3, 3) for X-Trans."""
    pattern = np.asarray(cfa)
    return np.argwhere([
        [np.array_equal(np.roll(pattern, (-dy, -dx), (0, 1)), pattern) for dx in range(len(pattern))] for dy in range(len(pattern))
    ])  # fmt: skip


def nearest_phase_keeping(shift: tuple[float, float], cfa: Cfa) -> tuple[int, int]:
    """The whole shift (dy, dx) nearest to `shift`, photosites, after which each site meets one of its own colour."""
    period = len(cfa)
    base = np.floor(np.asarray(shift) / period).astype(int) * period
    corners = base + period * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    candidates = (corners[:, None] + phase_keeping_shifts(cfa)).reshape(-1, 2)
    best = candidates[np.square(candidates - shift).sum(axis=1).argmin()]
    return int(best[0]), int(best[1])


def binned(image: NDArray, side: int) -> NDArray:
    """Means of squares of `side`; a remainder at the lower and right edge is left out."""
    rows, columns = (length // side for length in image.shape)
    total = sum(image[y : rows * side : side, x : columns * side : side] for y in range(side) for x in range(side))
    return np.asarray(total) / np.float32(side**2)


def any_in(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Squares of `side` in which any element is True."""
    return binned(mask.astype(np.float32), side) > 0


def overlap(shape: tuple[int, int], shift: tuple[int, int], period: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Parts of two frames of one `shape` that show the same: short[part] and long[part], long[y + dy, x + dx] = short[y, x].

    The part of the short frame starts at a whole `period`, so its pattern is unchanged.

    Raises:
        ValueError: nothing overlaps.
    """
    here, there = [], []
    for length, moved in zip(shape, shift, strict=True):
        start = -(-max(0, -moved) // period) * period
        stop = min(length, length - moved)
        if stop - start < period:
            raise ValueError(f"a shift of {shift} leaves nothing of a frame of {shape} in common")
        here.append(slice(start, stop))
        there.append(slice(start + moved, stop + moved))
    return (here[0], here[1]), (there[0], there[1])


TAPER = 0.25  # of each side, so that the edges do not correlate with themselves
FINE = 20  # steps per pixel of the refined peak
REACH = 1.5  # pixels around the coarse peak that are refined


@dataclass(frozen=True)
class Registration:
    """`reference[y + dy, x + dx]` shows what `image[y, x]` shows.

    Attributes:
        shift: (dy, dx), pixels.
        peak: height of the correlation peak in standard deviations of the correlation elsewhere.
    """

    shift: tuple[float, float]
    peak: float


def high_pass(image: NDArray) -> NDArray:
    """(a - b - c + d) / 2 of each 2 x 2 neighbourhood: blind to planes, and white noise keeps its variance."""
    return (image[:-1, :-1] - image[1:, :-1] - image[:-1, 1:] + image[1:, 1:]) / 2


def robust_sd(values: NDArray) -> float:
    """Standard deviation of the bulk: 1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def _spectrum(image: NDArray, window: NDArray, shape: list[int]) -> NDArray:
    return fft.rfft2(((image - image.mean()) * window).astype(np.float32), shape)


def _refined(cross: NDArray, shape: list[int], coarse: NDArray) -> NDArray:
    """The correlation's maximum near `coarse` on a grid of 1 / FINE, by the Fourier sum itself (Guizar-Sicairos 2008)."""
    steps = np.arange(-REACH, REACH + 1e-9, 1 / FINE)
    weight = np.full(cross.shape[1], 2.0)  # the half spectrum stands for both halves
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    rows = np.exp(2j * np.pi * np.outer(coarse[0] + steps, fft.fftfreq(shape[0])))
    columns = np.exp(2j * np.pi * np.outer(coarse[1] + steps, fft.rfftfreq(shape[1]))) * weight
    surface = (rows.astype(np.complex64) @ cross @ columns.T.astype(np.complex64)).real
    best = np.unravel_index(surface.argmax(), surface.shape)
    return coarse + steps[list(best)]


def register(image: NDArray, reference: NDArray) -> Registration:
    """Shift of `reference` (clean) against `image` (noisy), both (H, W) in one scale.

    Phase correlation whose whitening stops at the noise: F G* / (|G|^2 + N) with N the noise power of `image` from
    its own high-pass. Without noise this is an impulse at the shift; under noise it turns into the matched filter.
    Works to about half of the frame; rotation and zoom are not modelled.
    """
    from scipy.signal.windows import tukey  # slow to import, and most commands need none

    window = np.outer(*(tukey(length, TAPER) for length in image.shape)).astype(np.float32)
    shape = [fft.next_fast_len(length, real=True) for length in image.shape]
    spectrum, clean = _spectrum(image, window, shape), _spectrum(reference, window, shape)
    power = np.abs(clean) ** 2
    noise = robust_sd(high_pass(image)) ** 2 * float(np.square(window).sum())
    cross = spectrum * clean.conj() / (power + np.float32(noise + 1e-3 * power.mean() + 1e-20))
    correlation = fft.irfft2(cross, shape)
    place = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
    peak = float(correlation.max()) / max(robust_sd(correlation[::3, ::3]), 1e-20)
    coarse = np.where(place > np.asarray(shape) / 2, place - shape, place)
    dy, dx = -_refined(cross, shape, coarse)
    return Registration((float(dy), float(dx)), peak)


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
