"""How long the tails of the read noise are: the shape of Tukey's lambda distribution."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import tklmbda

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
