"""A U-Net that chooses, pixel by pixel, among local means of the input that are exact for flat regions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.networks.sides import check_sides
from lowlight_kedro.diffusion.networks.unet import UNet
from lowlight_kedro.diffusion.sums import moving_sum

SOFT_LIMIT = 8.0  # of the candidates, in the network's units: no mean may correct a pixel by much more than 8 sigma


def precision_weighted_mean(x: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """sum(x / sigma^2) / sum(1 / sigma^2) over (2 reach + 1)^2 windows, per channel; x, sigma (B, C, H, W).

    The maximum-likelihood estimate where the image is flat; sites of unknown value (huge sigma) do not count.
    """
    precision, side = sigma.pow(-2), 2 * reach + 1
    padded = (F.pad(t, (reach, reach, reach, reach)) for t in (precision * x, precision))
    weighted, weights = (moving_sum(moving_sum(t, side, -2), side, -1) for t in padded)
    return weighted / weights


class PyramidUNet(nn.Module):
    """F = sum_k g_k F_k + R: gates g (softmax over k) and residual R from a U-Net.

    Candidate k is the F that makes the denoiser answer with m_k: F_k = (m_k - c_skip x) / c_out, with m_0 = x and
    m_k the precision-weighted means of growing reach; F_k is softly limited, so that D(x; sigma -> 0) = x holds.
    An untrained network is thus a smoothing filter, and training begins with where to smooth how much: in the
    demo's two minutes that is worth 3 dB over a plain U-Net (docs/LOG.md).

    Args:
        widths, blocks: of the U-Net, see `UNet`; it works on 2x2 pixel blocks.
        reaches: pixels, of the means.
        sigma_data: of the preconditioning around this network; it must be the denoiser's.
    """

    def __init__(self, widths: Sequence[int], blocks: int, reaches: Sequence[int], sigma_data: float, channels: int = 3) -> None:
        super().__init__()
        self.reaches, self.sigma_data, self.channels = tuple(reaches), sigma_data, channels
        candidates = len(self.reaches) + 1
        self.unet = UNet(
            widths, blocks, patch=2,
            channels=channels, inputs=channels * candidates, outputs=channels * (candidates + 1),
        )  # fmt: skip
        self.multiple = self.unet.multiple
        self.reach = self.unet.reach + max(self.reaches, default=0)

    def candidates(self, scaled: Tensor, c_noise: Tensor) -> list[Tensor]:
        """F_0, F_1, ... (B, C, H, W) each, from the network's two inputs."""
        sigma = (4 * c_noise.float()).exp()
        c_skip, c_out, _ = coefficients(sigma, self.sigma_data)
        x = scaled.float() * (sigma.square() + self.sigma_data**2).sqrt()  # scaled / c_in
        kept = c_skip * x

        def free(mean: Tensor) -> Tensor:
            wanted = (mean - kept) / c_out
            return wanted * torch.rsqrt(1 + wanted.square() / SOFT_LIMIT**2)

        return [free(x), *(free(precision_weighted_mean(x, sigma, reach)) for reach in self.reaches)]

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, C, H, W) and ln(sigma) / 4 of the same shape to F.

        One candidate at a time: stacks of them would be the largest tensors of a whole frame's window.
        """
        check_sides(scaled, self.multiple)
        candidates = self.candidates(scaled, c_noise)
        x = self.unet.first(F.pixel_unshuffle(torch.cat([scaled, *candidates[1:], c_noise], dim=1), self.unet.patch))
        out = self.unet.trunk(x).unflatten(1, (-1, self.channels)).float()
        total = out[:, -1]
        for gate, candidate in zip(out[:, :-1].softmax(dim=1).unbind(1), candidates, strict=True):
            total = total + gate * candidate
        return total


def pyramid_unet(*, widths: Sequence[int], blocks: int, reaches: Sequence[int] = (1, 2, 4, 8), sigma_data: float = 0.5) -> PyramidUNet:
    """See `PyramidUNet`: learns fastest; the one for laptops and short trainings."""
    return PyramidUNet(widths, blocks, reaches, sigma_data)
