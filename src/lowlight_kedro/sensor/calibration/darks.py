"""What frames without light tell: black level error, row noise, and how long the tails of the read noise are (Tukey's lambda)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import tklmbda

from lowlight_kedro.sensor.calibration.fit import contrasts, inliers
from lowlight_kedro.sensor.cfa import Cfa, tile_pattern

REACH = 8.0  # standard deviations looked at: what is farther is a hot photosite, not read noise
BIN = 0.25  # width of the histogram's bins, standard deviations
GRID = 512
SHAPES = (-0.3, 0.5)
START = (0.05, np.log(0.6))


def cumulative(edges: NDArray, shape: float, scale: float, of_contrast: bool) -> NDArray:
    """Probability below `edges` of Tukey lambda noise, or of (a - b) / sqrt(2) of two independent such values.

    The quantile function is scale * (p**shape - (1 - p)**shape) / shape (Joiner and Rosenblatt 1971). A difference
    is not of the family, its tails are shorter: its distribution is computed, by convolution on a grid.
    """
    if not of_contrast:
        return np.asarray(tklmbda(edges / scale, shape))
    from scipy.signal import fftconvolve  # slow to import

    half = 2.5 * np.abs(edges).max() / scale
    grid = np.linspace(-half, half, GRID + 1)
    masses = np.diff(tklmbda(grid[: GRID // 2 + 1], shape))
    masses = np.concatenate([masses, masses[::-1]])  # symmetric, and slow to compute
    below = np.cumsum(fftconvolve(masses, masses))
    step = grid[1] - grid[0]
    ends = (np.arange(len(below)) - len(masses) + 1.5) * step
    return np.interp(edges * np.sqrt(2) / scale, ends, below)


def _histogram(values: NDArray, spread: float) -> tuple[NDArray, NDArray]:
    """Counts and edges (units of `spread`) within `REACH`; bins hold a whole number of rounding steps of the data."""
    distinct = np.unique(values[:10000])
    gaps = np.diff(distinct)
    step = float(np.median(gaps[gaps > 1e-6 * spread])) if len(gaps) else 0.0
    width = max(round(BIN * spread / step), 1) * step if step > 0.02 * spread else BIN * spread
    number = int(REACH * spread / width)
    edges = (np.arange(-number, number + 2) - 0.5) * width
    if step > 0.02 * spread:
        edges = edges + 0.5 * width - 0.5 * step
    return np.histogram(values, edges)[0], edges / spread


def tail_shape(values: NDArray, of_contrast: bool) -> tuple[float, float] | None:
    """Shape and its standard error by maximum likelihood on a histogram; None where rounding hides the shape.

    Args:
        values: dark noise, any shape, centred, without row noise and fixed patterns; at least some ten thousand.
        of_contrast: they are (a - b) / sqrt(2) of two exposures, not one exposure.

    The scale is fitted beside it; photosites beyond 8 standard deviations do not count. The error comes from the
    curvature of the likelihood, grown by the histogram's misfit where the noise is no Tukey lambda at all.
    """
    from scipy.optimize import minimize  # slow to import

    values = values.ravel()
    spread = float(np.quantile(np.abs(values), 0.95) / 1.96)
    if spread <= 0 or len(np.unique(values[np.abs(values) < REACH * spread][:10000])) < 16:
        return None
    counts, edges = _histogram(values, spread)

    def probabilities(parameters: NDArray) -> NDArray:
        masses = np.diff(cumulative(edges, float(np.clip(parameters[0], *SHAPES)), float(np.exp(parameters[1])), of_contrast))
        return np.maximum(masses, 1e-12) / max(masses.sum(), 1e-12)

    def loss(parameters: NDArray) -> float:
        return -float(counts @ np.log(probabilities(parameters)))

    best = minimize(loss, START, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-3, "initial_simplex": _simplex()}).x
    curvature = _curvature(loss, best)
    expected = counts.sum() * probabilities(best)
    seen = expected > 5
    misfit = float(((counts - expected)[seen] ** 2 / expected[seen]).sum() / max(seen.sum() - 3, 1))
    variance = np.linalg.pinv(curvature)[0, 0] * max(1.0, misfit)
    return float(best[0]), float(np.sqrt(variance)) if variance > 0 else float("inf")


def _simplex() -> NDArray:
    """Where the search starts: about the normal distribution and a tenth to each side."""
    shape, scale = START
    return np.array([START, (shape + 0.1, scale), (shape, scale + 0.1)])


def _curvature(loss: Callable[[NDArray], float], at: NDArray, step: float = 0.01) -> NDArray:
    """Second derivatives (2, 2) of `loss` by central differences."""
    steps = np.eye(2) * step
    return np.array(
        [[(loss(at + a + b) - loss(at + a - b) - loss(at - a + b) + loss(at - a - b)) / (4 * step**2) for b in steps] for a in steps]
    )


CLIPPED_FRACTION = 0.01  # fraction of photosites at the lowest value from which the noise is cut off at black


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
    return bool((frames == lowest).mean() > CLIPPED_FRACTION)


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
