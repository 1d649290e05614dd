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


def windowed(x: Tensor, reach: int) -> Tensor:
    """Sums over (2 reach + 1)^2 windows, zero outside the image; (B, C, H, W) to the same."""
    side = 2 * reach + 1
    return moving_sum(moving_sum(F.pad(x, (reach, reach, reach, reach)), side, -2), side, -1) if reach else x


class LocalMeans:
    """Local estimates of an image with noise of level `sigma`, both (B, C, H, W); windows are summed once each."""

    def __init__(self, x: Tensor, sigma: Tensor) -> None:
        self._precision = sigma.pow(-2)
        self._weighted = self._precision * x
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def _window(self, reach: int) -> tuple[Tensor, Tensor]:
        if reach not in self._windows:
            weights = windowed(self._precision, reach)
            self._windows[reach] = windowed(self._weighted, reach) / weights, weights
        return self._windows[reach]

    def mean(self, reach: int) -> Tensor:
        """sum(x / sigma^2) / sum(1 / sigma^2) over (2 reach + 1)^2 windows, per channel.

        The maximum-likelihood estimate where the image is flat; sites of unknown value (huge sigma) do not count.
        """
        return self._window(reach)[0]

    def with_detail(self, fine: int, coarse: int) -> Tensor:
        """m_coarse of each channel + sum_c w_c (m_fine,c - m_coarse,c) / sum_c w_c, w the precision within the fine window.

        What varies between the two reaches is taken to be the same in all channels, as in demosaicing by colour differences:
        colour is smoother than brightness, and in a mosaic one channel is known where the others are not.
        """
        (near, weights), far = self._window(fine), self.mean(coarse)
        return far + (weights * (near - far)).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


class PyramidUNet(nn.Module):
    """F = sum_k g_k F_k + R: gates g (softmax over k) and residual R from a U-Net.

    Candidate k is the F that makes the denoiser answer with m_k: F_k = (m_k - c_skip x) / c_out, with m_0 = x and
    m_k the estimates of `LocalMeans`; F_k is softly limited, so that D(x; sigma -> 0) = x holds.
    An untrained network is thus a smoothing and demosaicing filter, and training begins with where to smooth how much: in the
    demo's two minutes that is worth 3 dB over a plain U-Net, and `details` 1.5 to 3 dB more (docs/LOG.md).

    Args:
        widths, blocks: of the U-Net, see `UNet`; it works on 2x2 pixel blocks.
        reaches: pixels, of the means per channel.
        details: pairs (fine, coarse) of reaches, of the means with the detail of all channels.
        sigma_data: of the preconditioning around this network; it must be the denoiser's.
    """

    def __init__(
        self, widths: Sequence[int], blocks: int, reaches: Sequence[int], details: Sequence[Sequence[int]], sigma_data: float,
        channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reaches, self.details = tuple(reaches), tuple((fine, coarse) for fine, coarse in details)
        self.sigma_data, self.channels = sigma_data, channels
        candidates = 1 + len(self.reaches) + len(self.details)
        self.unet = UNet(
            widths, blocks, patch=2,
            channels=channels, inputs=channels * candidates, outputs=channels * (candidates + 1),
        )  # fmt: skip
        self.multiple = self.unet.multiple
        self.reach = self.unet.reach + max(*self.reaches, *(reach for pair in self.details for reach in pair), 0, 0)

    def candidates(self, scaled: Tensor, c_noise: Tensor) -> list[Tensor]:
        """F_0, F_1, ... (B, C, H, W) each, from the network's two inputs."""
        sigma = (4 * c_noise.float()).exp()
        c_skip, c_out, _ = coefficients(sigma, self.sigma_data)
        x = scaled.float() * (sigma.square() + self.sigma_data**2).sqrt()  # scaled / c_in
        kept, gain, one, local = c_skip * x, 1 / c_out, x.new_ones(()), LocalMeans(x, sigma)

        def free(estimate: Tensor) -> Tensor:
            wanted = (estimate - kept) * gain
            return wanted * torch.addcmul(one, wanted, wanted, value=SOFT_LIMIT**-2).rsqrt()

        means = (local.mean(reach) for reach in self.reaches)
        detailed = (local.with_detail(fine, coarse) for fine, coarse in self.details)
        return [free(estimate) for estimate in (x, *means, *detailed)]

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
            total = torch.addcmul(total, gate, candidate)
        return total


def pyramid_unet(
    *, widths: Sequence[int], blocks: int, reaches: Sequence[int] = (1, 2, 4, 8), details: Sequence[Sequence[int]] = (),
    sigma_data: float = 0.5,
) -> PyramidUNet:  # fmt: skip
    """See `PyramidUNet`: learns fastest; the one for laptops and short trainings."""
    return PyramidUNet(widths, blocks, reaches, details, sigma_data)
