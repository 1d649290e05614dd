"""Several networks as one: each where it works best, by what was measured and how noisy it is."""

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.networks.mosaic import DARK, UNKNOWN, MosaicNet, phases
from lowlight_kedro.diffusion.networks.sides import check_sides

CELL = 8  # pixels a side over which the noise is averaged; windows begin at multiples of it, so their cells agree
STRAYS = 0.002  # share of measured values that may lie outside of a mosaic


def follows(measured: Tensor, pattern: Tensor) -> Tensor:
    """Which images of `measured` (B, 3, H, W) are mosaics of `pattern` (P, P) in any phase, but for sites that were not measured; (B,)."""
    height, width = measured.shape[-2:]
    inside = []
    for image, (row, column) in zip(measured, phases(measured, pattern), strict=True):
        rows, columns = ((torch.arange(side) - start) % len(pattern) for side, start in ((height, row), (width, column)))
        channel = pattern[rows.to(pattern.device)[:, None], columns.to(pattern.device)]
        inside.append((image & F.one_hot(channel, 3).permute(2, 0, 1).bool()).sum() > (1 - STRAYS) * image.sum())
    return torch.stack(inside)


def noise_seen(light: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
    """sigma / sqrt(light + DARK) where something was measured, twice the shown noise, averaged over some cells; (B, 1, H, W)."""
    pooled = F.avg_pool2d(torch.cat([light * measured, sigma.square() * measured, measured.to(light)], 1), CELL)
    pooled = F.avg_pool2d(pooled, 3, 1, 1, count_include_pad=False).unflatten(1, (3, -1)).sum(2)
    mean, variance, count = pooled.unbind(1)
    seen = (variance / ((mean.abs() + DARK * count).clamp(min=1e-12))).sqrt()[:, None]
    return F.interpolate(seen, scale_factor=float(CELL), mode="bilinear", align_corners=False)


class Experts(nn.Module):
    """F of `general`, and of a mosaic's own network where that mosaic is less noisy than `fade`, with a smooth change between.

    All share units and preconditioning, so a mean of their F is the same mean of their D. Only those that count are evaluated.

    Args:
        general: for any noise map.
        mosaics: by name, for mosaics of their pattern.
        fade: (from, to), see `noise_seen`: up to the first the mosaic's network has weight 1, from the second on 0.
    """

    def __init__(self, general: nn.Module, mosaics: Mapping[str, MosaicNet], fade: tuple[float, float], sigma_data: float) -> None:
        super().__init__()
        self.general, self.mosaics = general, nn.ModuleDict(mosaics)
        self.fade, self.sigma_data = fade, sigma_data
        networks = [general, *mosaics.values()]
        self.multiple = lcm(CELL, *(getattr(network, "multiple", 1) for network in networks))
        reaches = [getattr(network, "reach", None) for network in networks]
        self.reach = None if None in reaches else max(3 * CELL, *(reach for reach in reaches if reach is not None))

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, 3, H, W) and ln(sigma) / 4 of the same shape to F."""
        check_sides(scaled, self.multiple)
        answer: Tensor | None = None
        left = torch.ones_like(scaled[:, :1], dtype=torch.float32)
        for network in self.mosaics.values():
            weight = self.weight(network, scaled, c_noise)  # type: ignore[arg-type]
            answer = _added(answer, network, weight, scaled, c_noise)
            left = left - weight
        answer = _added(answer, self.general, left, scaled, c_noise)
        return torch.zeros_like(scaled) if answer is None else answer

    def weight(self, network: MosaicNet, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Of a mosaic's network, (B, 1, H, W) in [0, 1]."""
        sigma, span = (4 * c_noise.float()).exp(), network.white - network.black
        measured = sigma < UNKNOWN
        fits = follows(measured, network.pattern)
        if not fits.any():
            return torch.zeros_like(sigma[:, :1])
        x = scaled.float() / coefficients(sigma, self.sigma_data)[2]
        seen = noise_seen((x - network.black) / span, sigma / span, measured)
        low, high = self.fade
        return fits[:, None, None, None] * ((high - seen) / (high - low)).clamp(0, 1)


def _added(answer: Tensor | None, network: nn.Module, weight: Tensor, scaled: Tensor, c_noise: Tensor) -> Tensor | None:
    """`answer` and `weight` times what `network` says of the images where that is not 0."""
    counts = weight.amax((1, 2, 3)) > 0
    if not counts.any():
        return answer
    if counts.all():
        part = weight * network(scaled, c_noise)
    else:
        part = torch.zeros_like(scaled, dtype=torch.float32)
        part[counts] = weight[counts] * network(scaled[counts], c_noise[counts])
    return part if answer is None else answer + part


def experts(
    *, general: Mapping[str, Any], mosaics: Mapping[str, Mapping[str, Any]], fade: Sequence[float], sigma_data: float = 0.5
) -> Experts:
    """See `Experts`; networks as `{name: ..., options: {...}}`, those of `mosaics` are `mosaic_net`s."""
    from lowlight_kedro.diffusion.networks import NETWORKS

    def built(choice: Mapping[str, Any]) -> Any:
        return NETWORKS[choice["name"]](**choice["options"])

    return Experts(built(general), {name: built(choice) for name, choice in mosaics.items()}, (fade[0], fade[1]), sigma_data)
