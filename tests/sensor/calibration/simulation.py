"""A simulated Sony A7S II at ISO 1600, in plain NumPy: no noise model of the package takes part."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lowlight_kedro.sensor.cfa import Cfa, tile_pattern

SPAN = 16383 - 512
BALANCE = (0.5, 1.0, 0.65)


@dataclass(frozen=True)
class Sensor:
    """DN. `tail` is Tukey's lambda shape, None = Gaussian; `hot` a fraction of photosites with a level and noise of their own."""

    k: float = 1.5301
    read: float = 6.299
    row: float = 0.989
    black: float = 0.0
    tail: float | None = None
    hot: float = 0.0
    prnu: float = 0.0

    @property
    def gain(self):
        return self.k / SPAN

    @property
    def read_noise(self):
        return np.hypot(self.read, 12**-0.5) / SPAN

    def expose(self, signal, rng):
        """One normalised exposure; hot and differing photosites are the same in each."""
        fixed = np.random.default_rng(99)
        signal = signal * (1 + self.prnu * fixed.normal(size=signal.shape))
        dn = rng.poisson(np.maximum(signal, 0) * SPAN / self.k) * self.k
        dn = dn + self.read * self.unit_noise(signal.shape, rng) + rng.normal(0, self.row, (signal.shape[0], 1)) + self.black
        hot = fixed.random(signal.shape) < self.hot
        dn = dn + hot * (fixed.exponential(2000, signal.shape) + rng.normal(0, 300, signal.shape) * (fixed.random(signal.shape) < 0.5))
        return (np.clip(np.rint(dn + 512), 0, 16383) - 512) / SPAN

    def unit_noise(self, shape, rng):
        if self.tail is None:
            return rng.normal(size=shape)
        quantile = lambda p: (p**self.tail - (1 - p) ** self.tail) / self.tail  # noqa: E731
        scale = np.sqrt(np.mean(quantile((np.arange(10**5) + 0.5) / 10**5) ** 2))
        return quantile(rng.uniform(1e-12, 1 - 1e-12, shape)) / scale


def balance(shape, cfa: Cfa):
    return tile_pattern(np.asarray(BALANCE)[np.asarray(cfa)], shape)


def flats(sensor, cfa, rng, shape=(240, 240), levels=(0.01, 0.03, 0.1, 0.3, 0.7), frames=2):
    """Unevenly lit flats at several levels of light."""
    rows, columns = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    light = (1 - 0.3 * rows**2 - 0.2 * (columns - 0.2) ** 2) * balance(shape, cfa)
    return [[sensor.expose(level * light, rng) for _ in range(frames)] for level in levels]


def darks(sensor, rng, shape=(240, 240), frames=4):
    return [sensor.expose(np.zeros(shape), rng) for _ in range(frames)]


def scene(cfa, rng, shape=(384, 384)):
    """Clouds of light over two decades, patches with edges, and texture of the size of a photosite or two."""
    clouds = gaussian_filter(rng.normal(size=shape), 30, mode="wrap")
    light = 0.12 * np.exp(clouds / clouds.std())
    for _ in range(12):
        top, left, height, width = (*rng.integers(0, shape[0], 2), *rng.integers(20, 150, 2))
        light[top : top + height, left : left + width] *= rng.uniform(0.2, 2.5)
    texture = 1 + 0.25 * gaussian_filter(rng.normal(size=shape), 1.5)
    return np.clip(light * texture, 0, 2) * balance(shape, cfa)


def covers(values, errors, truth, reach=2.0):
    """Fraction of estimates whose interval of `reach` standard errors holds the truth."""
    return float(np.mean(np.abs(np.asarray(values) - truth) <= reach * np.asarray(errors)))
