"""One exposure as the posterior sees it: which values were measured, and how well."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.sensor.cfa import Cfa, embed, masks
from lowlight_kedro.sensor.noise import NoiseModel
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain


@dataclass(frozen=True)
class Measurement:
    """y = A x + s n on one frame, in network units; A picks the measured channel of each photosite.

    Attributes:
        y: (1, 3, H, W), 0 where nothing was measured: A^T of the mosaic.
        mask: (1, 3, H, W) of 0 and 1: A^T A.
        s: (1, 3, H, W) standard deviation of the noise on every channel, measured or not.
    """

    y: Tensor
    mask: Tensor
    s: Tensor


def observe(light: NDArray, cfa: Cfa, scaling: Scaling) -> tuple[Tensor, Tensor]:
    """A white-balanced mosaic (H, W), scaled to the long exposure (1 = its white, not clipped), as `y` and `mask`."""
    y = scaling.to_network(TILE_SLOPE * embed(light, cfa) - 1)
    mask = masks(cfa, light.shape).astype(np.float32)
    return torch.from_numpy((y * mask).astype(np.float32))[None], torch.from_numpy(mask)[None]


def _smooth(x: Tensor, reach: int) -> Tensor:
    side = 2 * reach + 1
    return F.avg_pool2d(F.pad(x, (reach,) * 4, mode="reflect"), side, stride=1)


def noise_map(
    clean: Tensor, noise: NoiseModel, exposure_ratio: float, white_balance: Sequence[float], scaling: Scaling, reach: int = 4
) -> Tensor:
    """Standard deviation (1, 3, H, W), network units, of a short exposure whose clean light is `clean` (the same units).

    s = g sqrt(Var(x / g)) with g = ratio * white balance of the channel, and x a *denoised* estimate, smoothed over
    (2 reach + 1)^2 pixels: at the noisy pixel itself the variance would be low wherever the noise is negative.
    """
    gains = exposure_ratio * clean.new_tensor(white_balance).reshape(1, 3, 1, 1)
    light = from_tile_domain(scaling.to_tile(_smooth(clean, reach)))
    return gains * noise.variance(light / gains).sqrt() * (TILE_SLOPE / scaling.scale)


def local_mean(y: Tensor, mask: Tensor, reach: int) -> Tensor:
    """Mean of the measured values in (2 reach + 1)^2 windows, per channel: a first estimate that needs no prior."""
    return _smooth(y, reach) / _smooth(mask, reach).clamp(min=1e-6)
