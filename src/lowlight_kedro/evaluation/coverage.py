"""Whether a standard deviation is true: how often the long exposure lies as close as it says."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = (50, 90, 95)  # per cent
LEAST_STD = 0.5 / 65535  # what a 16-bit file cannot tell from 0


def reference_variance(light: NDArray, white_balance: tuple[float, float, float], noise: Mapping[str, Any]) -> NDArray[np.float64]:
    """Noise variance (3, H, W) of a long exposure's white-balanced `light` itself: b gain x + b^2 read_noise^2.

    `noise` holds gain and read noise in units of its white. As of measured values: demosaicing correlates neighbours, and makes
    interpolated ones a little less noisy than this.
    """
    gains = np.asarray(white_balance, np.float64).reshape(3, 1, 1)
    return gains * noise["gain"] * np.maximum(light, 0) + (gains * noise["read_noise"]) ** 2


def coverage(image: NDArray, truth: NDArray, variance: NDArray, mask: NDArray) -> dict[str, float]:
    """Of the values over `mask` (H, W), the share that `truth` has within Gaussian 50, 90 and 95 % intervals of `image`.

    And `chi2`, the mean of (image - truth)^2 / variance: 1 where the variance is right on the whole, above it where it is too
    small. All (3, H, W); `variance` is that of the difference: posterior plus that of the truth, where it is noisy too.

    Returns:
        coverage_50, coverage_90, coverage_95, chi2.
    """
    z = (np.abs(image.astype(np.float64) - truth) / np.sqrt(np.maximum(variance, LEAST_STD**2)))[:, mask]
    shares = {f"coverage_{level}": float((z <= NormalDist().inv_cdf(0.5 + level / 200)).mean()) for level in LEVELS}
    return shares | {"chi2": float((z**2).mean())}
