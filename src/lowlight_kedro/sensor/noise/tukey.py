"""Tukey's lambda distribution: symmetric, its tails set by one shape (Joiner and Rosenblatt 1971).

Quantile Q(u) = (u^shape - (1 - u)^shape) / shape; shape 0 is the logistic distribution, .14 is close to a Gaussian,
less has longer tails, |x|^-(1 + 1/|shape|) below 0. ELD (Wei et al. 2020) fits it to the read noise of cameras.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 0.5, -0.4  # shapes; the variance is infinite from -.5 on
LOGITS = np.linspace(0, 37, 3001)  # nodes of the upper half of u, as ln(u / (1 - u)); 1 - u is below rounding at the end


def _powers(log_u: NDArray, log_v: NDArray, shape: float) -> NDArray:
    """Q from ln u and ln(1 - u); expm1 because shape may be near 0."""
    return log_u - log_v if shape == 0 else (np.expm1(shape * log_u) - np.expm1(shape * log_v)) / shape


@lru_cache(maxsize=32)
def standard_deviation(shape: float) -> float:
    """Of the distribution at scale 1: sqrt(2 / shape^2 (1 / (1 + 2 shape) - Gamma(shape + 1)^2 / Gamma(2 shape + 2)))."""
    from scipy.stats import tukeylambda  # slow to import

    return float(tukeylambda.std(shape))


def sample(shape: float, std: float, size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws with standard deviation `std`, by the quantile function."""
    u = rng.random(size) * (1 - 2**-53) + 2**-54  # in the open interval: Q is infinite at 0 and 1
    draws = _powers(np.log(u), np.log1p(-u), shape)
    draws *= std / standard_deviation(shape)
    return draws


def characteristic(t: NDArray, shape: float) -> NDArray[np.float64]:
    """E[cos(t x)] of the distribution with standard deviation 1; t (n,). Absolute error about 1e-14.

    Trapezoids in the logit of u, the upper half twice. Far out the phase t Q turns faster than the nodes follow; there
    the integral cancels, and a smooth end keeps the sum from making something of it.
    """
    quantiles = _powers(-np.logaddexp(0, -LOGITS), -np.logaddexp(0, LOGITS), shape) / standard_deviation(shape)
    weights = 2 * np.exp(-np.logaddexp(0, LOGITS) - np.logaddexp(0, -LOGITS)) * (LOGITS[1] - LOGITS[0])
    weights[0] /= 2
    end = np.multiply.outer(t, np.gradient(quantiles) / 1.5)
    for _ in range(4):
        np.square(end, out=end)  # to the power of 16
    return (np.cos(np.multiply.outer(t, quantiles)) * np.exp(-end)) @ weights
