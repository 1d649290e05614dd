"""Whether a standard deviation is true: how often the long exposure lies as close as it says, and where in its distribution.

Coverage answers at three levels; the histogram of the truth's place (Dawid's probability integral transform; of draws, the rank
histogram of Talagrand, Hamill 2001) shows how it is wrong: a hill where the told spread is too wide, a valley where it is too narrow,
a slope where the estimate is biased. Spread against error shows where: in places of little or of much spread.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = (50, 90, 95)  # per cent
BINS = 20  # of the histogram of places
SPREADS = 8  # groups of values with like standard deviations
TOLERATED = 0.03  # of the fraction within the 90 % interval, before a verdict calls it wrong
LEAST_STD = 0.5 / 65535  # what a 16-bit file cannot tell from 0


def reference_variance(light: NDArray, white_balance: tuple[float, float, float], noise: Mapping[str, Any]) -> NDArray[np.float64]:
    """Noise variance (3, H, W) of a long exposure's white-balanced `light` itself: b gain x + b^2 read_noise^2.

    `noise` holds gain and read noise in units of its white. As of measured values: demosaicing correlates neighbours, and makes
    interpolated ones a little less noisy than this.
    """
    gains = np.asarray(white_balance, np.float64).reshape(3, 1, 1)
    return gains * noise["gain"] * np.maximum(light, 0) + (gains * noise["read_noise"]) ** 2


def coverage(image: NDArray, truth: NDArray, variance: NDArray, mask: NDArray) -> dict[str, float]:
    """Of the values over `mask` (H, W), the fraction that `truth` has within Gaussian 50, 90 and 95 % intervals of `image`.

    And `chi2`, the mean of (image - truth)^2 / variance: 1 where the variance is right on the whole, above it where it is too
    small. All (3, H, W); `variance` is that of the difference: posterior plus that of the truth, where it is noisy too.

    Returns:
        coverage_50, coverage_90, coverage_95, chi2.
    """
    z = (np.abs(image.astype(np.float64) - truth) / np.sqrt(np.maximum(variance, LEAST_STD**2)))[:, mask]
    fractions = {f"coverage_{level}": float((z <= NormalDist().inv_cdf(0.5 + level / 200)).mean()) for level in LEVELS}
    return fractions | {"chi2": float((z**2).mean())}


def places(image: NDArray, truth: NDArray, variance: NDArray, mask: NDArray) -> NDArray[np.int64]:
    """Histogram (BINS,) of Phi((truth - image) / std) over `mask`, arguments as of `coverage`: even where the std is true."""
    from scipy.special import ndtr

    place = ndtr(((truth.astype(np.float64) - image) / np.sqrt(np.maximum(variance, LEAST_STD**2)))[:, mask])
    return np.histogram(place, BINS, (0, 1))[0]


def ranks(draws: NDArray, truth: NDArray, mask: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Histogram (K + 1,) of how many of K draws (K, 3, H, W) lie below `truth` (3, H, W) over `mask`; ties are drawn by lot.

    Even if truth and draws are of one distribution. A truth with noise of its own needs draws with the same noise added.
    """
    drawn, true = draws[:, :, mask], truth[:, mask]
    below, equal = (drawn < true).sum(0), (drawn == true).sum(0)
    rank = below + rng.integers(0, equal + 1)
    return np.bincount(rank.ravel(), minlength=len(draws) + 1)


def spread_against_error(
    image: NDArray, truth: NDArray, variance: NDArray, mask: NDArray
) -> list[tuple[float, float, int]]:  # fmt: skip
    """Root mean square of the told std and of the error, and the number of values, in SPREADS equal groups of rising std."""
    std = np.sqrt(np.maximum(variance, LEAST_STD**2))[:, mask].ravel()
    error = (truth.astype(np.float64) - image)[:, mask].ravel()
    groups = np.array_split(np.argsort(std, kind="stable"), SPREADS)
    return [(float(np.sqrt(np.square(std[g]).mean())), float(np.sqrt(np.square(error[g]).mean())), len(g)) for g in groups if len(g)]


def verdict(fraction_within_90: float) -> str:
    """In words: whether the 90 % interval holds what it says."""
    if not np.isfinite(fraction_within_90):
        return "not measured"
    if abs(fraction_within_90 - 0.9) <= TOLERATED:
        return f"true: {100 * fraction_within_90:.0f} % of the values lie within the 90 % interval"
    word = "too narrow" if fraction_within_90 < 0.9 else "too wide"
    return f"{word}: {100 * fraction_within_90:.0f} % of the values lie within the 90 % interval"
