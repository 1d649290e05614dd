"""Training noise as a camera makes it: levels that follow brightness, mosaics with unknown values."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.draws import CORRUPTIONS, Corrupted, Corruption, Draws, lognormal_sigma
from lowlight_kedro.diffusion.scaling import SIGMA_DATA, Scaling
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, surrogate_variance
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, Cfa, masks
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

DIM = 0.01  # light, white = 1, below which a difference is no longer shown any larger
NARROW = (torch.pi / 2) ** 0.5  # half-width of an interval of a normal variable per probability in it, for small ones
PATCH = 16  # pixels over which the brightness behind a camera map is averaged: the map must not tell the image
MOSAICS: dict[str, Cfa] = {"bayer": BAYER_RGGB, "xtrans": XTRANS}


def _log_uniform(draws: Draws, channels: int, limits: Sequence[float], like: Tensor) -> Tensor:
    """(B, channels, 1, 1) on the device of `like`."""
    low, high = (float(np.log(limit)) for limit in limits)
    return (draws.uniform(channels, 1, 1) * (high - low) + low).exp().to(like, non_blocking=True)


def local_light(x0: Tensor, scaling: Scaling) -> Tensor:
    """Mean light of `PATCH` x `PATCH` pixels of images (B, 3, H, W), 1 = white, at every pixel."""
    local = F.avg_pool2d(x0, PATCH, ceil_mode=True).repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
    return from_tile_domain(scaling.to_tile(local[..., : x0.shape[-2], : x0.shape[-1]]))  # type: ignore[no-any-return]


def camera_sigma(
    light: Tensor, scaling: Scaling, shot: Sequence[float], read: Sequence[float], balance: Sequence[float], draws: Draws
) -> Tensor:  # fmt: skip
    """Maps sqrt(b shot x + b^2 read^2) (B, 3, H, W), network units, where the light is x; `shot`, `read` and `balance` are ranges.

    shot = gain * ratio and read = read_noise * ratio, in units of the long exposure's white, and the white-balance
    gain b of red and blue (green has 1) are drawn log-uniformly per image.
    """
    gain, dark = (_log_uniform(draws, 1, limits, light) for limits in (shot, read))
    white = _log_uniform(draws, 3, balance, light)
    white[:, 1] = 1
    return (white * gain * light.clamp(min=0) + (white * dark).square()).sqrt() * (TILE_SLOPE / scaling.scale)


@lru_cache(16)
def _whole_mask(name: str, height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(masks(MOSAICS[name], (height, width))).to(device)


def mosaic_masks(x0: Tensor, names: Sequence[str], draws: Draws, phase: tuple[int, int] | None = None) -> Tensor:
    """Per image, the mask (B, 3, H, W) of one of the mosaics at `phase`, or at a random one."""
    height, width = x0.shape[-2:]
    whole = {name: _whole_mask(name, height + 6, width + 6, x0.device) for name in names}
    chosen = []
    for which, down, right in draws.uniform(3).tolist():
        top, left = phase or (int(down * 6), int(right * 6))
        chosen.append(whole[names[int(which * len(names))]][:, top : top + height, left : left + width])
    return torch.stack(chosen)


def unknown_weights(s: Tensor, weight: float, floor: float) -> Tensor:
    """Weight of the loss on unknown values among sites measured with noise `s`: weight sd^2 / (e^2 + floor^2).

    e^2 = s^2 sd^2 / (s^2 + sd^2) is about what can be known of them, and `floor` what a demosaicer gets wrong without noise. So
    demosaicing a quiet exposure, where errors are small, counts as much as guessing in a loud one.
    """
    return weight * SIGMA_DATA**2 / (surrogate_variance(s, SIGMA_DATA) + floor**2)


def shown_weights(light: Tensor, s: Tensor, sigma: Tensor, scaling: Scaling, floor: float) -> Tensor:
    """Weight of the loss by which errors count as they are seen: floor^2-scaled squares of shown differences over what noise leaves.

    A difference d of light x is shown as about d / (2 sqrt(x + DIM)), and counts in units of sqrt(s^2 / 4 + floor^2), s the shown
    noise of the measured sites: half of it is about what remains of it. x is the local mean, not the value itself, so that the
    least loss is still at the posterior mean. The loss itself divides by c_out(sigma)^2, which is taken back.

    Args:
        light: local mean, 1 = white. s: noise where something was measured. sigma: level as the network is told. All (B, 3, H, W).
        floor: what a demosaicer gets wrong without noise, in units of shown white.
    """
    per_shown = 4 * (light.clamp(min=0) + DIM) * (TILE_SLOPE / scaling.scale) ** 2  # squared network units per shown unit squared
    return coefficients(sigma, SIGMA_DATA)[1].square() / (s.square() / 4 + floor**2 * per_shown)


def noise_map(
    *, P_mean: float, P_std: float, scaling: Scaling, uniform_fraction: float, camera_fraction: float,  # noqa: N803
    shot: Sequence[float], read: Sequence[float], balance: Sequence[float], mosaics: Sequence[str],
    unknown_fraction: float, unknown_weight: float, unknown_floor: float, shown_floor: float | None = None, dead: float = 0.0,
    phase: tuple[int, int] | None = None,
) -> Corruption:  # fmt: skip
    """A mixture, drawn per image: uniform levels (the unconditional EDM prior), camera maps, and mosaics of them.

    The rest, 1 - uniform_fraction - camera_fraction, are mosaics: measured sites have a camera map; the others are
    unknown (value 0, level SIGMA_UNKNOWN, loss times `unknown_weights`) in a fraction `unknown_fraction` of them, and
    as noisy as a uniform level tells in the others, which is what sampling in a mosaic meets.

    Args:
        shown_floor: errors of camera maps and mosaics count by `shown_weights` with this floor; None: by the rules above.
        phase: row and column at which mosaics begin, for a network that brings them all into one phase; None: random.
        dead: fraction of the measured sites of a mosaic that are unknown too, as defects are.

    Raises:
        ValueError: the fractions do not add up to at most 1, or a mosaic has no such name.
    """
    if uniform_fraction + camera_fraction > 1 or not set(mosaics) <= set(MOSAICS):
        raise ValueError(
            f"uniform_fraction + camera_fraction must be at most 1, got {uniform_fraction} + {camera_fraction}; "
            f"mosaics must be among {', '.join(MOSAICS)}, got {', '.join(mosaics)}"
        )

    def corrupt(x0: Tensor, draws: Draws) -> Corrupted:
        kind, mask_kind = draws.uniform(2, 1, 1, 1).to(x0, non_blocking=True).unbind(1)
        is_mosaic = kind >= uniform_fraction + camera_fraction
        level = lognormal_sigma(x0, draws, P_mean, P_std).expand_as(x0)
        light = local_light(x0, scaling)
        camera = camera_sigma(light, scaling, shot, read, balance, draws)
        measured = mosaic_masks(x0, mosaics, draws, phase)
        if dead:
            measured &= draws.field(x0).abs() > dead * NARROW
        missing = is_mosaic & ~measured
        unknown = missing & (mask_kind < unknown_fraction)
        sigma = torch.where((kind < uniform_fraction) | missing, level, camera)
        sigma = torch.where(unknown, SIGMA_UNKNOWN, sigma)
        x = torch.where(unknown, 0.0, x0 + sigma * draws.field(x0))
        if shown_floor is None:
            return Corrupted(x, sigma, torch.where(unknown, unknown_weights(camera, unknown_weight, unknown_floor), 1.0))
        weights = shown_weights(light, camera, sigma, scaling, shown_floor)
        return Corrupted(x, sigma, torch.where(kind < uniform_fraction, 1.0, weights))

    return corrupt


ALL_CORRUPTIONS = CORRUPTIONS | {"noise_map": noise_map}
