"""Photo-electrons that are counted exactly and read with Gaussian noise: the Poisson-Gaussian convolution.

    p(y | s) = sum_k Poisson(k; s / gain) N(y; gain k, read_noise^2)

In electrons (y / gain, r = read_noise / gain) the logarithm of a term is t(k) = k ln lambda - ln k! - (y - k)^2 / 2 r^2
up to constants. t is concave, so the terms that matter lie in one window about its top.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, wrightomega, xlogy

from lowlight_kedro.sensor.noise.chunks import in_chunks

NEGLIGIBLE = 37.0  # terms below exp(-37) of the largest are left out: 1e-16, below rounding
LARGEST_EXPONENT = 700.0  # exp of it is still finite in float64
PHOTOSITES = 16_384  # at a time; times some 80 terms of the sum: 10 MB an array


def _window(y: NDArray, electrons: NDArray, r: float) -> NDArray:
    """Counts (N, n) whose terms are not negligible.

    The top solves ln lambda - ln u + (y + 1/2 - u) / r^2 = 0 with u = k + 1/2 (Stirling), hence Wright's omega.
    Reach: t falls at least as fast as a Gaussian of standard deviation r (its curvature there) and as a Poisson
    distribution of mean u (Bernstein's inequality); it does not grow with the light beyond 8.6 r.
    """
    with np.errstate(divide="ignore"):
        top = r**2 * wrightomega(np.log(electrons) + (y + 0.5) / r**2 - 2 * np.log(r))
    poisson_reach = NEGLIGIBLE / 3 + np.sqrt((NEGLIGIBLE / 3) ** 2 + 2 * NEGLIGIBLE * (top + 1))
    reach = int(np.ceil(min(np.sqrt(2 * NEGLIGIBLE) * r, poisson_reach.max()))) + 2
    return np.maximum(np.floor(top) - reach, 0)[:, None] + np.arange(2 * reach + 1)


def _terms(y: NDArray, electrons: NDArray, r: float) -> tuple[NDArray, NDArray]:
    k = _window(y, electrons, r)
    return k, xlogy(k, electrons[:, None]) - gammaln(k + 1) - (y[:, None] - k) ** 2 / (2 * r**2)


def _log_density(y: NDArray, electrons: NDArray, r: float) -> NDArray:
    _, terms = _terms(y, electrons, r)
    top = terms.max(axis=1)
    return top + np.log(np.exp(terms - top[:, None]).sum(axis=1)) - electrons - np.log(2 * np.pi * r**2) / 2


def _slope(y: NDArray, electrons: NDArray, r: float) -> NDArray:
    """d ln p / d lambda = E[k | y] / lambda - 1; at lambda = 0 it is p(y | one electron) / p(y | none) - 1."""
    k, terms = _terms(y, electrons, r)
    weights = np.exp(terms - terms.max(axis=1, keepdims=True))
    mean = (weights * k).sum(axis=1) / weights.sum(axis=1)
    dark = np.exp(np.minimum((y - 0.5) / r**2, LARGEST_EXPONENT))
    lit = electrons > np.finfo(float).tiny
    return np.where(lit, mean / np.where(lit, electrons, 1), dark) - 1


def log_likelihood(observed: NDArray, signal: NDArray, gain: float, read_noise: float) -> NDArray:
    """ln p(observed | signal); a signal below black is dark, with its mean at `signal`.

    Exact to rounding at any light; the cost is 17 read_noise / gain terms a photosite, whatever the count, so there
    is no switch to the Gaussian form (which is off by 1 / (12 electrons) even at its peak: it never agrees to rounding).
    """

    def part(y: NDArray, s: NDArray) -> NDArray:
        lit = np.maximum(s, 0)
        return _log_density((y - np.minimum(s, 0)) / gain, lit / gain, read_noise / gain) - np.log(gain)

    return in_chunks(part, observed, signal, PHOTOSITES)


def score(observed: NDArray, signal: NDArray, gain: float, read_noise: float) -> NDArray:
    """d ln p / d signal: (E[k | y] gain / signal - 1) / gain; below black that of the Gaussian, (y - s) / read_noise^2."""

    def part(y: NDArray, s: NDArray) -> NDArray:
        lit = np.maximum(s, 0)
        return np.where(s < 0, (y - s) / read_noise**2, _slope(y / gain, lit / gain, read_noise / gain) / gain)

    return in_chunks(part, observed, signal, PHOTOSITES)
