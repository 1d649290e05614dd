"""The whole chain of a camera: photons, long-tailed read noise, rows, black-level error, rounding and clipping."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.noise import tukey
from lowlight_kedro.sensor.noise.chunks import in_chunks
from lowlight_kedro.sensor.noise.density import BRIGHTEST, LogTable, Parts, Tables, tabulate
from lowlight_kedro.sensor.noise.poisson_gaussian import photo_electrons

PHOTOSITES = 1 << 19  # at a time


@dataclass(frozen=True)
class CameraNoise:
    """What a raw file shows of `signal`: clip(round(photons + read noise + row offset + black-level error)).

    Args (units of white - black):
        gain: signal per photo-electron.
        read_noise: standard deviation in the dark, without what photosites share.
        tail: Tukey lambda shape of the read noise, -.4 to .5 (ELD, Wei et al. 2020); None = Gaussian.
        row_noise: standard deviation of the offset that the photosites of a sensor row share, one draw per frame and row.
        black_error: standard deviation of the offset that a colour channel shares, one draw per frame and channel.
        step: of the rounding, 1 / (white_dn - black_dn); 0 = none.
        white: where values are clipped; None = nowhere. floor: likewise below, -black_dn / (white_dn - black_dn).
            Both are whole multiples of step.

    The likelihood is that of each photosite by itself: exact margins (photons are counted, not approximated), blind to
    the correlation along a row or in a channel. With step > 0 it is the probability of the DN, divided by step; at
    `white` and `floor` that of all values clipped there (for step = 0 not divided: there is no density).
    Photo-electron peaks of a read noise below half an electron are resolved only up to some ten electrons.
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
        if not (self.gain > 0 and self.read_noise > 0):
            raise ValueError(f"gain and read_noise must be positive, got gain={self.gain}, read_noise={self.read_noise}")
        if min(self.row_noise, self.black_error, self.step) < 0:
            raise ValueError(f"row_noise, black_error and step must not be negative, got {self.row_noise}, {self.black_error}, {self.step}")
        if self.tail is not None and not tukey.LONGEST <= self.tail <= tukey.SHORTEST:
            raise ValueError(f"tail must be in [{tukey.LONGEST}, {tukey.SHORTEST}] or None for a Gaussian, got {self.tail}")

    @property
    def _parts(self) -> Parts:
        return Parts(self.gain, self.read_noise, self.tail, float(np.hypot(self.row_noise, self.black_error)), self.step)

    def variance(self, signal: Any) -> Any:
        """gain max(signal, 0) + read_noise^2 + row_noise^2 + black_error^2 + step^2 / 12: one photosite, unclipped."""
        return self.gain * signal.clip(min=0) + self._parts.dark_variance

    def sample(self, signal: NDArray, rng: np.random.Generator, channels: NDArray | None = None) -> NDArray:
        """One exposure of `signal` (..., rows, columns); `channels` (rows, columns), one channel if None."""
        *frames, rows, _ = signal.shape
        values = photo_electrons(signal, self.gain, rng)
        if self.tail is None:
            values += rng.normal(0, self.read_noise, signal.shape)
        else:
            values += tukey.sample(self.tail, self.read_noise, signal.shape, rng)
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

    def log_likelihood(self, observed: NDArray, signal: NDArray) -> NDArray:
        """ln p(observed | signal) of each photosite; see the class for what p is under rounding and clipping."""
        return in_chunks(self._log_likelihood, observed, signal, PHOTOSITES)

    def score(self, observed: NDArray, signal: NDArray) -> NDArray:
        """d log_likelihood / d signal; below black the light has no say, only the mean moves."""
        return in_chunks(self._score, observed, signal, PHOTOSITES)

    def _standardised(self, bound: Any, signal: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Brightness, residual of `bound` in standard deviations, standard deviation."""
        lit, dark = np.clip(signal, 0, BRIGHTEST), self._parts.dark_variance
        std = np.sqrt(self.variance(signal))
        return np.log1p(self.gain * lit / dark), (bound - signal) / std, std

    def _clipped(self, tables: Tables, observed: NDArray) -> Iterator[tuple[NDArray, float, LogTable]]:
        """Photosites clipped at white, at the floor: which, bound of the values that end there, ln of their probability."""
        half = self.step / 2
        if self.white is not None:
            yield np.flatnonzero(observed >= self.white - half), self.white - half, tables.above
        if self.floor is not None:
            yield np.flatnonzero(observed <= self.floor + half), self.floor + half, tables.below

    def _log_likelihood(self, observed: NDArray, signal: NDArray) -> NDArray:
        tables = tabulate(self._parts)
        v, z, std = self._standardised(observed, signal)
        result = tables.density.value(v, z) - np.log(std)
        unit = np.log(self.step) if self.step else 0.0
        for which, bound, table in self._clipped(tables, observed):
            if which.size:
                v, z, _ = self._standardised(bound, signal[which])
                result[which] = table.value(v, z) - unit
        return result

    def _score(self, observed: NDArray, signal: NDArray) -> NDArray:
        tables = tabulate(self._parts)
        result = self._slope(tables.density, observed, signal)
        result -= self._variance_slope(signal) / (2 * self.variance(signal))
        for which, bound, table in self._clipped(tables, observed):
            if which.size:
                result[which] = self._slope(table, bound, signal[which])
        return result

    def _variance_slope(self, signal: NDArray) -> NDArray:
        return np.where(signal >= 0, self.gain, 0.0)

    def _slope(self, table: LogTable, bound: Any, signal: NDArray) -> NDArray:
        """d/ds of table(v(s), z(s)) with z = (bound - s) / std(s)."""
        v, z, std = self._standardised(bound, signal)
        dv, dz = table.gradient(v, z)
        slope = self._variance_slope(signal)
        brighter = np.where(signal < BRIGHTEST, slope / self.variance(signal), 0.0)
        return dv * brighter - dz * (1 / std + z * slope / (2 * std**2))
