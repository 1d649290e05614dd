"""A second answer to a mosaic: what a first network made of it, demosaiced by another one, and followed as far as both deserve."""

from collections.abc import Mapping
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.networks.mosaic import DARK, QUIETEST, UNKNOWN, MosaicNet, phases, shown

CLEAN, HIDDEN = 1e-3, 1e3  # light, white = 1: the noise that the second network is told of its sites, and of what it has to find
NEARBY = 4  # pixels, reach of the mean noise that the gate is told
SLIGHT = 0.01  # of shown white: finer than this two answers hardly differ
STRAYS = 0.1  # fraction of measured values that may lie outside of a mosaic: a window mirrored at the frame's rim is none there


def sites_of(measured: Tensor, pattern: Tensor) -> Tensor:
    """All sites (B, 3, H, W) of the mosaic of `pattern` (P, P) that `measured` shows part of, in its phase."""
    (height, width), side, device = measured.shape[-2:], len(pattern), measured.device
    whole = F.one_hot(pattern.to(device), 3).permute(2, 0, 1).bool()
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    starts = phases(measured, pattern)
    return torch.stack([whole[:, ((rows - row) % side)[:, None], (columns - column) % side] for row, column in starts])


def follows(measured: Tensor, pattern: Tensor) -> Tensor:
    """Which images of `measured` (B, 3, H, W) are mosaics of `pattern` (P, P) in any phase, but for sites that were not measured; (B,)."""
    inside = (measured & sites_of(measured, pattern)).sum((1, 2, 3))
    return inside > (1 - STRAYS) * measured.sum((1, 2, 3))


class Second(nn.Module):
    """Light of a mosaic, from the light D that a first network made of it.

    D is sampled as a mosaic again, in which hardly any noise is left, and `network` demosaics that. The answer is D + g (D2 - D)
    where nothing was measured, g in (0, 1) by convolutions that see both answers and the noise. Networks that learned apart err
    apart, so that a mean of both errs less than either; and a demosaicer of clean mosaics need not know what noise is. Measured
    values stay as they are, and with them D(x; sigma -> 0) = x.

    Args:
        network: without a front.
        width: channels of the gate; untrained it answers 1/2.
    """

    def __init__(self, network: MosaicNet, width: int) -> None:
        super().__init__()
        self.network = network
        self.gate = nn.Sequential(
            nn.Conv2d(14, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, 3, 1),
        )  # fmt: skip
        nn.init.zeros_(self.gate[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.gate[-1].bias)  # type: ignore[arg-type]
        self.multiple = lcm(network.side, network.multiple)  # windows of a frame then begin in the same phase
        self.reach = network.reach + NEARBY + 3

    @property
    def pattern(self) -> Tensor:
        """Of the mosaic, see `PATTERNS`."""
        return self.network.pattern

    def forward(self, light: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
        """Mean light (B, 3, H, W), white = 1, the noise of what was measured, and where that was, to the light to be followed."""
        other = self.network.light(light, torch.where(sites_of(measured, self.pattern), CLEAN, HIDDEN))
        known = F.avg_pool2d(measured.to(light).sum(1, keepdim=True), 2 * NEARBY + 1, 1, NEARBY).clamp(min=1e-6)
        variance = F.avg_pool2d((sigma.square() * measured).sum(1, keepdim=True), 2 * NEARBY + 1, 1, NEARBY) / known
        level = variance.clamp(min=QUIETEST**2).sqrt()
        level_shown = level * (light.mean(1, keepdim=True).abs() + DARK).rsqrt()
        first, apart = shown(light), shown(other) - shown(light)
        told = [
            first, 10 * apart, (apart / (level_shown + SLIGHT)).tanh(), measured.to(light), level.log() / 4 + 1.5, level_shown.log() / 2 + 2
        ]  # fmt: skip
        followed = self.gate(torch.cat(told, 1)).float().sigmoid()
        return torch.where(measured, light, torch.lerp(light, other, followed))


class Seconds(nn.ModuleDict):
    """(D, sigma) -> D of the images that are mosaics of one of these, network units, (B, 3, H, W); of all others as it is.

    Args:
        second: by the name of the mosaic.
        black, white: network units of no light and of white.
    """

    def __init__(self, second: Mapping[str, Second], black: float, white: float) -> None:
        super().__init__(second)
        self.black, self.white = black, white
        self.multiple = lcm(*(own.multiple for own in second.values()))
        self.reach = max(own.reach for own in second.values())

    def forward(self, mean: Tensor, sigma: Tensor) -> Tensor:
        """See the class; sigma is what was measured with, more than `UNKNOWN` where nothing was."""
        sigma, span = sigma.expand(mean.shape).float(), self.white - self.black
        measured = sigma < UNKNOWN
        for second in self.values():
            fits = follows(measured, second.pattern)  # type: ignore[arg-type]
            if fits.any():
                answer = second((mean[fits].float() - self.black) / span, sigma[fits] / span, measured[fits])
                mean = mean.index_put((fits,), (self.black + span * answer).to(mean))
        return mean
