"""ln density and ln tail probabilities of photons + read noise + offsets, tabulated once for a camera's noise.

What a photosite shows is a sum of independent parts, so its characteristic function is a product (t in units of 1/signal):

    phi(t) = exp(lambda (e^(i gain t) - 1 - i gain t)) phi_read(t) exp(-offset^2 t^2 / 2) sinc(step t / 2)

about the mean, lambda = signal / gain. The density is its Fourier integral, the distribution function that of Gil-Pelaez
(1951). Both are smooth functions of (brightness, asinh of the standardised residual): one bicubic spline each serves
every photosite, and its derivatives are the score.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.noise import tukey

if TYPE_CHECKING:
    from scipy.interpolate import BSpline

ROWS, COLUMNS = 160, 385
FURTHEST = 100.0  # residual up to which is tabulated, in standard deviations
PERIOD = 4 * FURTHEST  # of the Fourier series: what lies further off folds back
HIGHEST = 40.0  # frequency, per standard deviation
TRUSTED = 1e-11  # values below this fraction of the largest are rounding errors of the Fourier sum
SHALLOWEST = 2.0  # tails go on at least as steep as this power of the residual
FEW, MANY = 4.0, 12.0  # electrons between which the peaks of single electrons fade out of the table
BRIGHTEST = 2.0  # signal; above it the shape does not change any more


@dataclass(frozen=True)
class Parts:
    """What the additive noise consists of, in signal units; `offset` = standard deviation of all Gaussian offsets."""

    gain: float
    read_noise: float
    tail: float | None
    offset: float
    step: float

    @property
    def dark_variance(self) -> float:
        """Variance without light, with the rounding error's step^2 / 12."""
        return self.read_noise**2 + self.offset**2 + self.step**2 / 12


class LogTable:
    """A function of brightness v = ln(1 + gain s / dark variance) and residual z, as a spline in (v, asinh z).

    Beyond the table it goes on linearly in asinh z, that is as a power of z: finite everywhere and once differentiable.
    """

    def __init__(self, v: NDArray, w: NDArray, values: NDArray) -> None:
        from scipy.interpolate import RectBivariateSpline  # slow to import

        self._spline, self._edge = RectBivariateSpline(v, w, values), w[-1]

    def _at(self, v: NDArray, w: NDArray, dv: int, dw: int) -> NDArray:
        inside = np.clip(w, -self._edge, self._edge)
        value, excess = self._spline.ev(v, inside, dx=dv, dy=dw), w - inside
        out = np.flatnonzero(excess)
        if dw == 0 and out.size:
            value[out] += excess[out] * self._spline.ev(v[out], inside[out], dx=dv, dy=1)
        return value

    def value(self, v: NDArray, z: NDArray) -> NDArray:
        """The function."""
        return self._at(v, np.arcsinh(z), 0, 0)

    def gradient(self, v: NDArray, z: NDArray) -> tuple[NDArray, NDArray]:
        """Its derivatives with respect to v and z."""
        w = np.arcsinh(z)
        return self._at(v, w, 1, 0), self._at(v, w, 0, 1) / np.sqrt(1 + z**2)


@dataclass(frozen=True)
class Tables:
    """ln of the density of the rounded value in units of its standard deviation, and of P(value < z), P(value > z) before rounding."""

    density: LogTable
    below: LogTable
    above: LogTable


def _brightness_nodes(parts: Parts) -> NDArray:
    """Dense near the dark, where single electrons make the shape."""
    return np.linspace(0, 1, ROWS) ** 2 * np.log1p(parts.gain * BRIGHTEST / parts.dark_variance)


@lru_cache(maxsize=16)
def _long_tailed(shape: float) -> "BSpline":
    """The characteristic function of Tukey's lambda distribution; nodes dense near 0, where long tails bend it."""
    from scipy.interpolate import make_interp_spline  # slow to import

    nodes = HIGHEST * np.linspace(0, 1, 1001) ** 2
    return make_interp_spline(nodes, tukey.characteristic(nodes, shape), k=7)


def _peaks_kept(electrons: NDArray) -> NDArray:
    """1 at few electrons, 0 where the peaks of single electrons are too dense for the table: a smooth step."""
    x = np.clip((electrons - FEW) / (MANY - FEW), 0, 1)
    return 1 - x**2 * (3 - 2 * x)


def _characteristic(parts: Parts, electrons: NDArray, std: NDArray, t: NDArray) -> NDArray:
    """phi without the rounding, (rows, frequencies); t per standard deviation."""
    frequency = t / std[:, None]
    angle = parts.gain * frequency
    photons = electrons[:, None] * (-2 * np.sin(angle / 2) ** 2 + 1j * (np.sin(angle) - angle))
    photons = np.exp(photons) * np.where(angle > np.pi, _peaks_kept(electrons)[:, None], 1)
    reading = parts.read_noise * frequency
    read = np.exp(-(reading**2) / 2) if parts.tail is None else _long_tailed(parts.tail)(reading)
    return photons * read * np.exp(-((parts.offset * frequency) ** 2) / 2)


def _log_rows(values: NDArray, peak: NDArray, spacing: float) -> NDArray:
    """ln of rows; from where they drown in rounding errors outwards from `peak`, the last slope goes on."""
    logs = np.log(np.maximum(values, np.finfo(float).tiny))
    for row, value, top in zip(logs, values, peak, strict=True):
        drowned = np.flatnonzero(value < TRUSTED * value.max())
        for last, step in ((drowned[drowned > top].min(initial=len(row)) - 1, 1), (drowned[drowned < top].max(initial=-1) + 1, -1)):
            far = np.arange(last + step, len(row) if step == 1 else -1, step)
            slope = min(row[last] - row[last - step], -SHALLOWEST * spacing)
            row[far] = row[last] + slope * abs(far - last)
    return logs


@lru_cache(maxsize=1)
def _waves() -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Residual nodes w = asinh z, frequencies t, and cos(t z), sin(t z): the same for every camera."""
    w, spacing = np.linspace(-1, 1, COLUMNS) * np.arcsinh(FURTHEST), 2 * np.pi / PERIOD
    t = (np.arange(int(HIGHEST / spacing)) + 0.5) * spacing
    phase = np.outer(t, np.sinh(w))
    return w, t, np.cos(phase), np.sin(phase)


@lru_cache(maxsize=16)
def tabulate(parts: Parts) -> Tables:
    """The tables of one camera at one ISO: some tenths of a second, kept for the next call."""
    v, (w, t, cos, sin) = _brightness_nodes(parts), _waves()
    electrons = np.expm1(v) * parts.dark_variance / parts.gain**2
    std = np.sqrt(parts.dark_variance) * np.exp(v / 2)
    phi = _characteristic(parts, electrons, std, t) * (t[1] - t[0]) / np.pi
    rounded = phi * np.sinc(parts.step * t / (2 * np.pi * std[:, None]))
    density = rounded.real @ cos + rounded.imag @ sin
    half = (phi.imag / t) @ cos - (phi.real / t) @ sin
    first, last = np.zeros(ROWS, int), np.full(ROWS, COLUMNS - 1)
    return Tables(
        density=LogTable(v, w, _log_rows(density, density.argmax(axis=1), w[1] - w[0])),
        below=LogTable(v, w, _log_rows(0.5 - half, last, w[1] - w[0])),
        above=LogTable(v, w, _log_rows(0.5 + half, first, w[1] - w[0])),
    )
