"""Noise models: one object that simulates a sensor and tells the variance of each photosite, which is what restoration weighs by.

Units: signal 0 = black level, 1 = white level of the exposure at hand (`frame.normalise`). The long tails of read noise are those
of Tukey's lambda distribution (Joiner and Rosenblatt 1971), as ELD (Wei et al. 2020) fits them to cameras: its quantile function is
Q(u) = (u^shape - (1 - u)^shape) / shape. Shape 0 is the logistic distribution, 0.14 is close to a Gaussian, less has longer tails,
|x|^-(1 + 1/|shape|) below 0.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 0.5, -0.4  # shapes of the tail; the variance is infinite from -0.5 on


class NoiseModel(Protocol):
    """What every noise model can do. `signal` is the noise-free value, any shape; below black it counts as dark.

    The last two axes of what is sampled are rows and columns, leading axes are frames.
    """

    def variance(self, signal: Any) -> Any:
        """Variance of one photosite at `signal`, before clipping; NumPy array or torch tensor."""

    def sample(self, signal: NDArray, rng: np.random.Generator, channels: NDArray | None = None) -> NDArray:
        """One noisy exposure of `signal`; `channels` (rows, columns) is the colour channel of each photosite, 0, 1, ..."""


def photon(noise: NoiseModel) -> float:
    """The signal of one photon, by which the variance grows with light; 0 where it does not."""
    return max(float(noise.variance(np.asarray(1.0))) - float(noise.variance(np.asarray(0.0))), 0.0)


def _require_positive(gain: float, read_noise: float) -> None:
    if not (gain > 0 and read_noise > 0):
        raise ValueError(f"gain and read_noise must be positive, got gain={gain}, read_noise={read_noise}")


def photo_electrons(signal: NDArray, gain: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A Poisson draw of each photosite in signal units; what is below black is dark and keeps its offset."""
    electrons = rng.poisson(np.maximum(signal, 0) / gain)
    return electrons * gain + np.minimum(signal, 0)


def _quantile(log_u: NDArray, log_v: NDArray, shape: float) -> NDArray:
    """Q from ln u and ln(1 - u); expm1 because shape may be near 0."""
    return log_u - log_v if shape == 0 else (np.expm1(shape * log_u) - np.expm1(shape * log_v)) / shape


@lru_cache(maxsize=32)
def tukey_std(shape: float) -> float:
    """Of the distribution at scale 1: sqrt(2 / shape^2 (1 / (1 + 2 shape) - Gamma(shape + 1)^2 / Gamma(2 shape + 2)))."""
    from scipy.stats import tukeylambda  # slow to import

    return float(tukeylambda.std(shape))


def tukey_sample(shape: float, std: float, size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws with standard deviation `std`, by the quantile function."""
    u = rng.random(size) * (1 - 2**-53) + 2**-54  # in the open interval: Q is infinite at 0 and 1
    draws = _quantile(np.log(u), np.log1p(-u), shape)
    draws *= std / tukey_std(shape)
    return draws


@dataclass(frozen=True)
class PoissonGaussian:
    """Photon and read noise: Var = gain * signal + read_noise**2.

    Args:
        gain: signal per photo-electron, K / (white - black) with K in DN per electron.
        read_noise: standard deviation in the dark, sigma_DN / (white - black).
    """

    gain: float
    read_noise: float

    def __post_init__(self) -> None:
        _require_positive(self.gain, self.read_noise)

    def variance(self, signal: Any) -> Any:
        """gain * max(signal, 0) + read_noise**2: a signal estimate below black counts as dark."""
        return self.gain * signal.clip(min=0) + self.read_noise**2

    def sample(self, signal: NDArray, rng: np.random.Generator, channels: NDArray | None = None) -> NDArray:
        """Poisson photo-electrons times gain, plus Gaussian read noise; all channels are alike."""
        return photo_electrons(signal, self.gain, rng) + rng.normal(0, self.read_noise, np.shape(signal))


@dataclass(frozen=True)
class CameraNoise:
    """What a raw file shows of `signal`: clip(round(photons + read noise + row offset + black-level error)).

    Args (units of white - black):
        gain: signal per photo-electron.
        read_noise: standard deviation in the dark, without what photosites share.
        tail: Tukey lambda shape of the read noise, -0.4 to 0.5 (ELD, Wei et al. 2020); None = Gaussian.
        row_noise: standard deviation of the offset that the photosites of a sensor row share, one draw per frame and row.
        black_error: standard deviation of the offset that a colour channel shares, one draw per frame and channel.
        step: of the rounding, 1 / (white_dn - black_dn); 0 = none.
        white: where values are clipped; None = nowhere. floor: likewise below, -black_dn / (white_dn - black_dn).
            Both are whole multiples of step.
    """

    gain: float
    read_noise: float
    tail: float | None = None
    row_noise: float = 0.0
    black_error: float = 0.0
    step: float = 0.0
    white: float | None = 1.0
    floor: float | None = None

    def __post_init__(self) -> None:
        _require_positive(self.gain, self.read_noise)
        if min(self.row_noise, self.black_error, self.step) < 0:
            raise ValueError(f"row_noise, black_error and step must not be negative, got {self.row_noise}, {self.black_error}, {self.step}")
        if self.tail is not None and not LONGEST <= self.tail <= SHORTEST:
            raise ValueError(f"tail must be in [{LONGEST}, {SHORTEST}] or None for a Gaussian, got {self.tail}")

    def variance(self, signal: Any) -> Any:
        """gain max(signal, 0) + read_noise^2 + row_noise^2 + black_error^2 + step^2 / 12: one photosite, unclipped."""
        return self.gain * signal.clip(min=0) + self.read_noise**2 + self.row_noise**2 + self.black_error**2 + self.step**2 / 12

    def sample(self, signal: NDArray, rng: np.random.Generator, channels: NDArray | None = None) -> NDArray:
        """One exposure of `signal` (..., rows, columns); `channels` (rows, columns), one channel if None."""
        *frames, rows, _ = signal.shape
        values = photo_electrons(signal, self.gain, rng)
        if self.tail is None:
            values += rng.normal(0, self.read_noise, signal.shape)
        else:
            values += tukey_sample(self.tail, self.read_noise, signal.shape, rng)
        values += rng.normal(0, self.row_noise, (*frames, rows, 1))
        channels = np.zeros((1, 1), int) if channels is None else channels
        values += rng.normal(0, self.black_error, (*frames, channels.max() + 1))[..., channels]
        return self._recorded(values)

    def _recorded(self, values: NDArray) -> NDArray:
        """Rounded to the DN grid, then clipped; in place."""
        if self.step:
            values /= self.step
            np.rint(values, out=values)
            values *= self.step
        if self.white is None and self.floor is None:
            return values
        return np.clip(values, self.floor, self.white, out=values)


NOISE_MODELS: dict[str, type[NoiseModel]] = {"poisson_gaussian": PoissonGaussian, "camera": CameraNoise}
