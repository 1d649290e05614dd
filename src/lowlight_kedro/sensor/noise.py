"""Noise models: one object that both simulates a sensor and gives its likelihood.

Units: signal 0 = black level, 1 = white level of the exposure at hand (`frame.normalise`).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class NoiseModel(Protocol):
    """What every noise model can do. `signal` is the noise-free value, any shape."""

    def variance(self, signal: Any) -> Any:
        """Variance of one photosite at `signal`; NumPy array or torch tensor."""

    def sample(self, signal: NDArray, rng: np.random.Generator) -> NDArray:
        """One noisy exposure of `signal`."""

    def log_likelihood(self, observed: NDArray, signal: NDArray) -> NDArray:
        """Per-photosite ln p(observed | signal)."""

    def score(self, observed: NDArray, signal: NDArray) -> NDArray:
        """Its derivative with respect to `signal`."""


@dataclass(frozen=True)
class PoissonGaussian:
    """Photon and read noise: Var = gain * signal + read_noise**2.

    Args:
        gain: signal per photo-electron, K / (white - black) with K in DN per electron.
        read_noise: standard deviation in the dark, sigma_DN / (white - black).

    The likelihood is the heteroscedastic Gaussian one, log-variance term included
    (Foi et al. 2008); it is not exact below some ten electrons.
    """

    gain: float
    read_noise: float

    def __post_init__(self) -> None:
        if not (self.gain > 0 and self.read_noise > 0):
            raise ValueError(f"gain and read_noise must be positive, got gain={self.gain}, read_noise={self.read_noise}")

    def variance(self, signal: Any) -> Any:
        """gain * max(signal, 0) + read_noise**2: a signal estimate below black counts as dark."""
        return self.gain * signal.clip(min=0) + self.read_noise**2

    def sample(self, signal: NDArray, rng: np.random.Generator) -> NDArray:
        """Poisson photo-electrons times gain, plus Gaussian read noise."""
        photons = rng.poisson(np.maximum(signal, 0) / self.gain)
        return photons * self.gain + rng.normal(0, self.read_noise, np.shape(signal))

    def log_likelihood(self, observed: NDArray, signal: NDArray) -> NDArray:
        """-(y - s)**2 / 2v - ln(2 pi v) / 2 with v = variance(s)."""
        variance = self.variance(signal)
        return -((observed - signal) ** 2) / (2 * variance) - np.log(2 * np.pi * variance) / 2

    def score(self, observed: NDArray, signal: NDArray) -> NDArray:
        """r / v + a r**2 / 2 v**2 - a / 2 v with r = y - s and a = dv/ds (0 below black)."""
        variance, residual = self.variance(signal), observed - signal
        slope = np.where(signal > 0, self.gain, 0.0)
        return residual / variance + slope * residual**2 / (2 * variance**2) - slope / (2 * variance)


@dataclass(frozen=True)
class RowNoise(PoissonGaussian):
    """Poisson-Gaussian noise plus an offset common to each sensor row, N(0, row_noise**2).

    `variance` and the likelihood count the row offset per photosite, as if rows were independent of it:
    exact margins, no correlation along a row. The last two axes of `signal` are rows and columns.
    """

    row_noise: float = 0.0

    def variance(self, signal: Any) -> Any:
        """Poisson-Gaussian variance plus row_noise**2."""
        return super().variance(signal) + self.row_noise**2

    def sample(self, signal: NDArray, rng: np.random.Generator) -> NDArray:
        """A Poisson-Gaussian sample with one more offset per row."""
        rows = rng.normal(0, self.row_noise, (*signal.shape[:-1], 1)) if self.row_noise else 0.0
        return super().sample(signal, rng) + rows


NOISE_MODELS = {"poisson_gaussian": PoissonGaussian, "row_noise": RowNoise}
