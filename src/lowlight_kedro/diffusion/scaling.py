"""The affine map between the tile domain and the network's units, and what it implies for EDM's constants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lowlight_kedro.bounds import Positive

EDM_P_MEAN, EDM_P_STD = -1.2, 1.2
SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Scaling:
    """x_network = (x_tile - mean) / scale. With scale = 2 std the data has standard deviation 0.5 = sigma_data.

    An affine map keeps a Gaussian likelihood Gaussian: standard deviations divide by `scale`.
    """

    mean: float
    scale: Positive

    def to_network(self, tile: Any) -> Any:
        """Tile domain to network units."""
        return (tile - self.mean) / self.scale

    def to_tile(self, x: Any) -> Any:
        """Network units to tile domain."""
        return x * self.scale + self.mean


def propose(mean: float, std: float, noise_levels: Sequence[float]) -> dict[str, float]:
    """Scaling, sigma_data, P_mean and P_std for data of `mean` and `std` (tile domain).

    Training draws ln sigma ~ N(P_mean, P_std**2). `noise_levels` are standard deviations (tile domain) of the
    measurements to be restored; P_mean is the mean of their logarithms, in network units, less half of
    EDM's P_std, because restoration passes through every level below them too; P_std is at least EDM's.
    Without noise levels EDM's constants (Karras et al. 2022) stay: they were chosen for sigma_data = 0.5.

    Raises:
        ValueError: the data does not vary.
    """
    if not std > 0:
        raise ValueError(f"the standard deviation of the tiles must be positive, got {std}")
    scale = std / SIGMA_DATA
    p_mean, p_std = EDM_P_MEAN, EDM_P_STD
    if len(noise_levels):
        logs = np.log(np.asarray(noise_levels) / scale)
        p_mean, p_std = float(logs.mean() - EDM_P_STD / 2), max(EDM_P_STD, float(logs.std()))
    return {"mean": mean, "std": std, "scale": scale, "sigma_data": SIGMA_DATA, "P_mean": p_mean, "P_std": p_std}
