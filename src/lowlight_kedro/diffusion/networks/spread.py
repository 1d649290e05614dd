"""A second answer beside the mean: the standard deviation of P(x0 | x), learned from the errors of the mean."""

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.networks.mosaic import UNKNOWN
from lowlight_kedro.diffusion.networks.pyramid import NEARBY, compressed
from lowlight_kedro.diffusion.networks.unet import UNet
from lowlight_kedro.diffusion.sums import box_sum_padded

CONTRASTS = (1, 3)  # pixels, reaches of the local contrast of the mean
FINEST = 1e-4  # network units, below which contrast and noise are no longer told apart
WIDEST = 6.0  # ln of how far the answer may be from what the noise nearby tells


def local_mean(x: Tensor, reach: int) -> Tensor:
    """Means over (2 reach + 1)^2 windows, of what lies inside the image."""
    return box_sum_padded(x, reach) / box_sum_padded(x.new_ones(1, 1, *x.shape[-2:]), reach)


class Spread(nn.Module):
    """(x, sigma, D) -> standard deviation of P(x0 | x), every tensor (B, C, H, W), by a small U-Net of local features.

    It answers ln(std / e), e = (mean of 1 / sigma^2 nearby + 1 / sd^2)^(-1/2), how well a value could be known if its neighbours
    were the same, and is told e, sigma, the residual (x - D) / sigma, D, and where and how much D varies in units of e.

    Trained by -ln N(x0; D, std^2) of given D (`denoiser.denoising_losses`), its least loss is at the root of
    E[(x0 - D)^2 | what it is told]: errors of the mean that the prior does not know of are in it. The mean learns nothing from it.

    Args:
        widths, blocks: of the U-Net on 2 x 2 pixel blocks, see `UNet`.
        sigma_data: of the denoiser.
    """

    def __init__(self, widths: Sequence[int], blocks: int, sigma_data: float, channels: int = 3) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self.unet = UNet(widths, blocks, patch=2, channels=channels, inputs=(5 + len(CONTRASTS)) * channels, outputs=channels)
        self.multiple = self.unet.multiple
        self.reach = self.unet.reach + max(NEARBY, 2 * max(CONTRASTS))

    def forward(self, x: Tensor, sigma: Tensor, mean: Tensor) -> Tensor:
        """Standard deviation (B, C, H, W), fp32, network units."""
        x, sigma, mean = x.float(), sigma.float(), mean.float()
        measured = sigma < UNKNOWN
        known = (local_mean(sigma.pow(-2), NEARBY) + self.sigma_data**-2).rsqrt()
        detail = [mean - local_mean(mean, reach) for reach in CONTRASTS]
        contrasts = [(local_mean(part.square(), reach).sqrt() + FINEST).log() / 4 for part, reach in zip(detail, CONTRASTS, strict=True)]
        shown = [
            compressed(torch.where(measured, (x - mean) / sigma, 0.0)), mean, known.log() / 4, compressed(detail[0] / known), *contrasts,
            measured.to(x),
        ]  # fmt: skip
        ratio = self.unet(torch.cat(shown, 1), sigma.clamp(max=UNKNOWN).log() / 4).float()
        return known * (WIDEST * (ratio / WIDEST).tanh()).exp()  # never so far that no gradient is left


def with_spread(network: nn.Module, options: Mapping[str, Any], sigma_data: float) -> nn.Module:
    """`network` with a `Spread` of these options as its part `spread`; what it answers is what it answered before."""
    network.spread = Spread(**options, sigma_data=sigma_data)
    network.multiple = lcm(getattr(network, "multiple", 1), network.spread.multiple)  # type: ignore[assignment]
    return network
