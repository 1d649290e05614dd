"""Training noise as a camera makes it: levels that follow brightness, mosaics with unknown values."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.corruption import CORRUPTIONS, Corrupted, Corruption, lognormal_sigma
from lowlight_kedro.diffusion.order import Draws
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.guidance.spread import surrogate_variance
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, masks
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

PATCH = 16  # pixels over which the brightness behind a camera map is averaged: the map must not tell the image
MOSAICS: dict[str, Cfa] = {"bayer": BAYER_RGGB, "xtrans": XTRANS}


def _log_uniform(draws: Draws, channels: int, limits: Sequence[float], like: Tensor) -> Tensor:
    """(B, channels, 1, 1) on the device of `like`."""
    low, high = (float(np.log(limit)) for limit in limits)
    return (draws.uniform(channels, 1, 1) * (high - low) + low).exp().to(like, non_blocking=True)


def camera_sigma(
    x0: Tensor, scaling: Scaling, shot: Sequence[float], read: Sequence[float], balance: Sequence[float], draws: Draws
) -> Tensor:  # fmt: skip
    """Maps sqrt(b shot x + b^2 read^2) (B, 3, H, W), network units; `shot`, `read` and `balance` are ranges.

    shot = gain * ratio and read = read_noise * ratio, in units of the long exposure's white, and the white-balance
    gain b of red and blue (green has 1) are drawn log-uniformly per image; x is the local mean.
    """
    local = F.avg_pool2d(x0, PATCH, ceil_mode=True).repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    light = from_tile_domain(scaling.to_tile(local[..., : x0.shape[-2], : x0.shape[-1]]))
    gain, dark = (_log_uniform(draws, 1, limits, x0) for limits in (shot, read))
    white = _log_uniform(draws, 3, balance, x0)
    white[:, 1] = 1
    return (white * gain * light.clamp(min=0) + (white * dark).square()).sqrt() * (TILE_SLOPE / scaling.scale)


@lru_cache(16)
def _whole_mask(name: str, height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(masks(MOSAICS[name], (height, width))).to(device)


def mosaic_masks(x0: Tensor, names: Sequence[str], draws: Draws) -> Tensor:
    """Per image, the mask (B, 3, H, W) of one of the mosaics at a random phase."""
    height, width = x0.shape[-2:]
    whole = {name: _whole_mask(name, height + 6, width + 6, x0.device) for name in names}
    chosen = []
    for which, down, right in draws.uniform(3).tolist():
        top, left = int(down * 6), int(right * 6)
        chosen.append(whole[names[int(which * len(names))]][:, top : top + height, left : left + width])
    return torch.stack(chosen)


def unknown_weights(s: Tensor, weight: float, floor: float) -> Tensor:
    """Weight of the loss on unknown values among sites measured with noise `s`: weight sd^2 / (e^2 + floor^2).

    e^2 = s^2 sd^2 / (s^2 + sd^2) is about what can be known of them, and `floor` what a demosaicer gets wrong without noise. So
    demosaicing a quiet exposure, where errors are small, counts as much as guessing in a loud one.
    """
    return weight * SIGMA_DATA**2 / (surrogate_variance(s, SIGMA_DATA) + floor**2)


def noise_map(
    *, P_mean: float, P_std: float, scaling: Scaling, uniform_share: float, camera_share: float,  # noqa: N803
    shot: Sequence[float], read: Sequence[float], balance: Sequence[float], mosaics: Sequence[str],
    unknown_share: float, unknown_weight: float, unknown_floor: float,
) -> Corruption:  # fmt: skip
    """A mixture, drawn per image: uniform levels (the unconditional EDM prior), camera maps, and mosaics of them.

    The rest, 1 - uniform_share - camera_share, are mosaics: measured sites have a camera map; the others are
    unknown (value 0, level SIGMA_UNKNOWN, loss times `unknown_weights`) in a share `unknown_share` of them, and
    as noisy as a uniform level tells in the others, which is what sampling in a mosaic meets.

    Raises:
        ValueError: the shares do not add up to at most 1, or a mosaic has no such name.
    """
    if uniform_share + camera_share > 1 or not set(mosaics) <= set(MOSAICS):
        raise ValueError(
            f"uniform_share + camera_share must be at most 1, got {uniform_share} + {camera_share}; "
            f"mosaics must be among {', '.join(MOSAICS)}, got {', '.join(mosaics)}"
        )

    def corrupt(x0: Tensor, draws: Draws) -> Corrupted:
        kind, mask_kind = draws.uniform(2, 1, 1, 1).to(x0, non_blocking=True).unbind(1)
        is_mosaic = kind >= uniform_share + camera_share
        level = lognormal_sigma(x0, draws, P_mean, P_std).expand_as(x0)
        camera = camera_sigma(x0, scaling, shot, read, balance, draws)
        missing = is_mosaic & ~mosaic_masks(x0, mosaics, draws)
        unknown = missing & (mask_kind < unknown_share)
        sigma = torch.where((kind < uniform_share) | missing, level, camera)
        sigma = torch.where(unknown, SIGMA_UNKNOWN, sigma)
        x = torch.where(unknown, 0.0, x0 + sigma * draws.field(x0))
        return Corrupted(x, sigma, torch.where(unknown, unknown_weights(camera, unknown_weight, unknown_floor), 1.0))

    return corrupt


ALL_CORRUPTIONS = CORRUPTIONS | {"noise_map": noise_map}
