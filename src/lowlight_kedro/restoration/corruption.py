"""Training noise as a camera makes it: levels that follow brightness, mosaics with unknown values."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.corruption import CORRUPTIONS, Corrupted, Corruption, lognormal_sigma
from lowlight_kedro.diffusion.denoiser import standard_normal
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.guidance.spread import surrogate_variance
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, masks
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

PATCH = 16  # pixels over which the brightness behind a camera map is averaged: the map must not tell the image
MOSAICS: dict[str, Cfa] = {"bayer": BAYER_RGGB, "xtrans": XTRANS}


def _uniform(shape: torch.Size, low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype) * (high - low) + low


def _log_uniform(shape: tuple[int, ...], limits: Sequence[float], like: Tensor, generator: torch.Generator) -> Tensor:
    low, high = (float(np.log(limit)) for limit in limits)
    return _uniform(torch.Size(shape), low, high, like, generator).exp()


def camera_sigma(
    x0: Tensor, scaling: Scaling, shot: Sequence[float], read: Sequence[float], balance: Sequence[float],
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Maps sqrt(b shot x + b^2 read^2) (B, 3, H, W), network units; `shot`, `read` and `balance` are ranges.

    shot = gain * ratio and read = read_noise * ratio, in units of the long exposure's white, and the white-balance
    gain b of red and blue (green has 1) are drawn log-uniformly per image; x is the local mean.
    """
    local = F.avg_pool2d(x0, PATCH, ceil_mode=True).repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    light = from_tile_domain(scaling.to_tile(local[..., : x0.shape[-2], : x0.shape[-1]]))
    gain, dark = (_log_uniform((len(x0), 1, 1, 1), limits, x0, generator) for limits in (shot, read))
    white = _log_uniform((len(x0), 3, 1, 1), balance, x0, generator)
    white[:, 1] = 1
    return (white * gain * light.clamp(min=0) + (white * dark).square()).sqrt() * (TILE_SLOPE / scaling.scale)


def mosaic_masks(x0: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Per image, the mask (B, 3, H, W) of one of the mosaics at a random phase."""
    draws = torch.rand(len(x0), 3, generator=generator, device=generator.device).tolist()
    height, width = x0.shape[-2:]
    whole = {name: torch.from_numpy(masks(MOSAICS[name], (height + 6, width + 6))) for name in names}
    chosen = []
    for which, down, right in draws:
        top, left = int(down * 6), int(right * 6)
        chosen.append(whole[names[int(which * len(names))]][:, top : top + height, left : left + width])
    return torch.stack(chosen).to(x0.device)


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

    def corrupt(x0: Tensor, generator: torch.Generator) -> Corrupted:
        kind = _uniform(torch.Size((len(x0), 1, 1, 1)), 0, 1, x0, generator)
        is_mosaic = kind >= uniform_share + camera_share
        level = lognormal_sigma(x0, generator, P_mean, P_std).expand_as(x0)
        camera = camera_sigma(x0, scaling, shot, read, balance, generator)
        missing = is_mosaic & ~mosaic_masks(x0, mosaics, generator)
        unknown = missing & (_uniform(kind.shape, 0, 1, x0, generator) < unknown_share)
        sigma = torch.where((kind < uniform_share) | missing, level, camera)
        sigma = torch.where(unknown, SIGMA_UNKNOWN, sigma)
        x = torch.where(unknown, 0.0, x0 + sigma * standard_normal(x0, generator))
        return Corrupted(x, sigma, torch.where(unknown, unknown_weights(camera, unknown_weight, unknown_floor), 1.0))

    return corrupt


ALL_CORRUPTIONS = CORRUPTIONS | {"noise_map": noise_map}
