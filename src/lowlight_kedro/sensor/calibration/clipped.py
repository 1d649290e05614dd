"""A Gaussian that a sensor clips: its mean and variance, and the way back (Foi et al., IEEE TIP 2008, section IV)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lowlight_kedro.sensor.cfa import Cfa

GRID = 800
FEW_PHOTONS = 30  # below, a clipped Poisson count is not Gaussian enough
PILED_UP = 1e-4  # share of sites at an extreme value from which the camera may be taken to clip there
NEAR_WHITE, CROWDED = 0.9, 1e-3  # a brightest value above this is saturation if so many sites lie within 2 % of it


def find_floor(signal: NDArray) -> float:
    """The smallest value of a mosaic where the camera clips there, else -inf."""
    return -_hard_clip(-signal)


def find_ceiling(signal: NDArray, cfa: Cfa) -> float:
    """The lowest value at which a colour saturates, else inf.

    A colour saturates where sites pile up at its largest value, or crowd below it near white: some cameras scale
    colours after clipping, and wells differ.
    """
    period, found = len(cfa), [np.inf]
    for row, column in np.ndindex(period, period):
        plane = signal[row::period, column::period]
        top = float(plane.max()) if plane.size else 0.0
        crowd = np.count_nonzero(plane >= 0.98 * top) if top >= NEAR_WHITE else 0
        found.append(top if crowd > CROWDED * plane.size else _hard_clip(plane))
    return min(found)


def _hard_clip(values: NDArray) -> float:
    """The largest value if more than twice as many sites have it as have the next one, else inf."""
    if not values.size:
        return np.inf
    top = values.max()
    below = values < top
    beside = values.max(where=below, initial=-np.inf)
    here = np.count_nonzero(~below)
    return float(top) if here > max(2 * np.count_nonzero(values == beside), PILED_UP * values.size, 10) else np.inf


def clipped_moments(mean: NDArray, deviation: NDArray, floor: float, ceiling: float) -> tuple[NDArray, NDArray]:
    """Mean and variance of clip(x, floor, ceiling) for x ~ N(mean, deviation^2); `floor` may be -inf, `ceiling` inf.

    With A, B the clips in standard deviations, P = Phi(B) - Phi(A) and D = phi(A) - phi(B), moments about `mean` are
    E1 = A Phi(A) + B Phi(-B) + D and E2 = A^2 Phi(A) + B^2 Phi(-B) + P + A phi(A) - B phi(B).
    """
    low = np.clip((floor - mean) / deviation, -40, 40)
    high = np.clip((ceiling - mean) / deviation, -40, 40)
    density_low, density_high = (np.exp(-(edge**2) / 2) / np.sqrt(2 * np.pi) for edge in (low, high))
    below, above = ndtr(low), ndtr(-high)
    first = low * below + high * above + density_low - density_high
    second = low**2 * below + high**2 * above + (1 - below - above) + low * density_low - high * density_high
    return mean + deviation * first, deviation**2 * np.maximum(second - first**2, 0)


def poisson_moments(signal: NDArray, gain: float, read_noise: float, floor: float) -> tuple[NDArray, NDArray]:
    """Mean and variance of max(gain * n + read, floor), n Poisson of mean signal / gain <= FEW_PHOTONS, read Gaussian.

    Exact where the Gaussian of the same variance is too symmetric.
    """
    from scipy.stats import poisson  # slow to import

    count = np.arange(int(FEW_PHOTONS + 9 * np.sqrt(FEW_PHOTONS)))
    probability = poisson.pmf(count, signal[:, None] / gain)
    mean, variance = clipped_moments(gain * count, np.full(count.shape, read_noise), floor, np.inf)
    total = probability @ mean
    return total, probability @ (variance + mean**2) - total**2


@dataclass(frozen=True)
class Curve:
    """Noise of a clipping sensor: Var = gain * s + offset before clipping, s >= 0; `offset` = read_noise^2."""

    gain: float
    offset: float
    floor: float = -np.inf
    ceiling: float = np.inf

    def _table(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Signal, variance, and mean and variance after clipping, on a grid that is dense near black."""
        top = self.ceiling if np.isfinite(self.ceiling) else 1.0
        reach = top + 6 * np.sqrt(self.gain * top + self.offset)
        signal = reach * np.linspace(0, 1, GRID) ** 3
        variance = np.maximum(self.gain * signal + self.offset, 1e-18)
        mean, clipped = clipped_moments(signal, np.sqrt(variance), self.floor, self.ceiling)
        few = signal < FEW_PHOTONS * self.gain
        if np.isfinite(self.floor) and few.any():
            mean[few], clipped[few] = poisson_moments(signal[few], self.gain, np.sqrt(self.offset), self.floor)
        return signal, variance, mean, clipped

    def unclipped(self, observed_mean: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Signal, variance and clipped variance / variance where the mean of clipped values is `observed_mean`.

        Below the mean that no light leaves (noise in the means) the signal goes on linearly below 0.
        """
        signal, variance, mean, clipped = self._table()
        found = np.interp(observed_mean, mean, signal) + np.minimum(observed_mean - mean[0], 0)
        ratio = np.interp(observed_mean, mean, clipped / variance)
        return found, np.maximum(self.gain * np.maximum(found, 0) + self.offset, 1e-18), np.clip(ratio, 1e-6, 1)
