"""Noise models: one object that both simulates a sensor and gives its likelihood.

Units: signal 0 = black level, 1 = white level of the exposure at hand (`frame.normalise`).
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.noise.camera import CameraNoise
from lowlight_kedro.sensor.noise.poisson_gaussian import PoissonGaussian


class NoiseModel(Protocol):
    """What every noise model can do. `signal` is the noise-free value, any shape; below black it counts as dark.

    The last two axes of what is sampled are rows and columns, leading axes are frames.
    """

    def variance(self, signal: Any) -> Any:
        """Variance of one photosite at `signal`, before clipping; NumPy array or torch tensor."""

    def sample(self, signal: NDArray, rng: np.random.Generator, channels: NDArray | None = None) -> NDArray:
        """One noisy exposure of `signal`; `channels` (rows, columns) is the colour channel of each photosite, 0, 1, ..."""

    def log_likelihood(self, observed: NDArray, signal: NDArray) -> NDArray:
        """Per-photosite ln p(observed | signal)."""

    def score(self, observed: NDArray, signal: NDArray) -> NDArray:
        """Its derivative with respect to `signal`."""


NOISE_MODELS: dict[str, type[NoiseModel]] = {"poisson_gaussian": PoissonGaussian, "camera": CameraNoise}
