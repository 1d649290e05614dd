"""A U-Net of local means, for any pattern and noise of measured values, and another one that tells how far a mean may be off."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.networks.mosaic import UNKNOWN
from lowlight_kedro.diffusion.networks.unet import UNet, check_sides
from lowlight_kedro.diffusion.sums import box_sum_padded


class LocalMeans:
    """Local estimates of an image with noise of level `sigma`, both (B, C, H, W), of data N(0, `sd`^2); windows are summed once each."""

    def __init__(self, x: Tensor, sigma: Tensor, sd: float) -> None:
        self._precision = sigma.pow(-2)
        self._weighted = self._precision * x
        self._prior = sd**-2
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def _window(self, reach: int) -> tuple[Tensor, Tensor]:
        if reach not in self._windows:
            weights = box_sum_padded(self._precision, reach)
            self._windows[reach] = box_sum_padded(self._weighted, reach) / (weights + self._prior), weights
        return self._windows[reach]

    def mean(self, reach: int) -> Tensor:
        """sum(x / sigma^2) / (sum(1 / sigma^2) + 1 / sd^2) over (2 reach + 1)^2 windows, per channel.

        The posterior mean where the image is flat; sites of unknown value (huge sigma) do not count.
        """
        return self._window(reach)[0]

    def with_detail(self, fine: int, coarse: int) -> Tensor:
        """m_coarse of each channel + sum_c w_c (m_fine,c - m_coarse,c) / (sum_c w_c + 1 / sd^2), w the precision within the fine window.

        What varies between the two reaches is taken to be the same in all channels, as in demosaicing by colour differences:
        colour is smoother than brightness, and in a mosaic one channel is known where the others are not.
        """
        (near, weights), far = self._window(fine), self.mean(coarse)
        return far + (weights * (near - far)).sum(1, keepdim=True) / (weights.sum(1, keepdim=True) + self._prior)

    def precision(self, reach: int) -> Tensor:
        """Mean of 1 / sigma^2 over (2 reach + 1)^2 windows, without what lies outside the image."""
        weights = self._window(reach)[1]
        return weights / box_sum_padded(weights.new_ones(1, 1, *weights.shape[-2:]), reach)


FARTHEST = 8.0  # standard deviations by which a mean may move a value
BRIGHTEST = 16.0  # what a difference from the mean is never more than, to the U-Net
NEARBY = 2  # pixels around a value whose measurements tell how well it can be known
DETAIL = 0.1  # network units: what a local mean gets wrong where there is no noise


def compressed(x: Tensor) -> Tensor:
    """x / sqrt(1 + |x| + (x / 16)^2): small values as they are, of larger ones the root, up to 16: convolutions in bf16 can hold both."""
    return x * torch.addcmul(1 + x.abs(), x, x, value=BRIGHTEST**-2).rsqrt_()


def as_computed(x: Tensor) -> Tensor:
    """x in the type that convolutions turn it into: under autocast half as much to lay out for them."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class PyramidUNet(nn.Module):
    """D = g_0 c_skip x + sum_k g_k m_k + e R: gates g (softmax over k) and R from a U-Net, m_k the estimates of `LocalMeans`.

    No m_k may be farther from x than 8 sigma, so that D(x; sigma -> 0) = x holds. e is how well a value can be known: c_out of
    the preconditioning where it was measured; where it was not, c_out of the noise nearby and `DETAIL`. The U-Net sees the
    estimates as differences from the last mean in units of e, so what it has to do is much the same in a quiet exposure and
    in a loud one, in the shadows and in the highlights, in RGB and in a mosaic (decision 14).

    An untrained network is thus a smoothing and demosaicing filter, and training begins with where to smooth how much. In the
    demo's two minutes that is worth 3 dB over a plain U-Net, and `details` 1.5 to 3 dB more (docs/LOG.md).

    Args:
        widths, blocks: of the U-Net, see `UNet`; it works on 2x2 pixel blocks.
        reaches: pixels, of the means per channel; at least one.
        details: pairs (fine, coarse) of reaches, of the means with the detail of all channels.
        sigma_data: of the preconditioning around this network; it must be the denoiser's.
    """

    def __init__(
        self, widths: Sequence[int], blocks: int, reaches: Sequence[int], details: Sequence[Sequence[int]], sigma_data: float,
        channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        if not reaches:
            raise ValueError("reaches must name one local mean or more, got none")
        self.reaches, self.details = tuple(reaches), tuple((fine, coarse) for fine, coarse in details)
        self.sigma_data, self.channels = sigma_data, channels
        candidates = 1 + len(self.reaches) + len(self.details)
        both = channels * (candidates + 1)  # in: differences, the last mean, noise nearby; out: gates and R
        self.unet = UNet(widths, blocks, patch=2, channels=channels, inputs=both, outputs=both)
        self.multiple = self.unet.multiple
        self.reach = self.unet.reach + max(NEARBY, *self.reaches, *(reach for pair in self.details for reach in pair))

    def error_scale(self, c_out: Tensor, precision: Tensor) -> Tensor:
        """e, network units: how well values of this c_out can be known among others of this mean precision 1 / sigma^2."""
        known = 1 / (precision + self.sigma_data**-2)
        return torch.minimum(c_out, (known + DETAIL**2).sqrt())

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, C, H, W) and ln(sigma) / 4 of the same shape to F = (D - c_skip x) / c_out."""
        check_sides(scaled, self.multiple)
        sigma = (4 * c_noise.float()).exp()
        x = scaled.float() / coefficients(sigma, self.sigma_data)[2]
        *others, base, precision = self._estimates(x, sigma)
        scale = self.error_scale(coefficients(sigma, self.sigma_data)[1], precision)
        logits, added = self._decided([x, *others], base, scale, precision, c_noise)
        less, highest = torch.sub if torch.is_grad_enabled() else Tensor.sub_, logits.detach().amax(1, keepdim=True)
        fractions, chosen = less(logits, highest).exp_(), torch.zeros_like(x)
        del logits, precision
        c_skip, c_out, _ = coefficients(sigma, self.sigma_data)  # once more, so that they are not kept while the U-Net works
        kept, farthest, gain = c_skip * x, FARTHEST * sigma, 1 / c_out
        low, high = x - farthest, x + farthest
        for fraction, estimate in zip(fractions[:, 1:].unbind(1), (base, *others), strict=True):  # c_skip x itself has F = 0
            chosen = torch.addcmul(chosen, fraction, estimate.clamp(low, high).sub_(kept).mul_(gain))
        return added * scale * gain + chosen / fractions.sum(1)

    def _estimates(self, x: Tensor, sigma: Tensor) -> list[Tensor]:
        """What `LocalMeans` finds, the widest mean last but for the mean precision nearby."""
        local = LocalMeans(x, sigma, self.sigma_data)
        detailed = [local.with_detail(fine, coarse) for fine, coarse in self.details]
        means = [local.mean(reach) for reach in self.reaches]
        return [*means[:-1], *detailed, means[-1], local.precision(NEARBY)]

    def _decided(
        self, estimates: Sequence[Tensor], base: Tensor, scale: Tensor, precision: Tensor, c_noise: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Logits of the gates (B, K, C, H, W) and R (B, C, H, W), from what the U-Net is shown."""
        seen = chain((compressed((estimate - base) / scale) for estimate in estimates), (base, precision.log() / -8, c_noise))
        first = self.unet.first(F.pixel_unshuffle(torch.cat([as_computed(shown) for shown in seen], dim=1), self.unet.patch))
        out = self.unet.trunk(first)
        logits, added = out.unflatten(1, (-1, self.channels)).tensor_split([len(estimates) + 1], dim=1)
        return logits.to(torch.float32, memory_format=torch.contiguous_format), added[:, 0].float()


def pyramid_unet(
    *, widths: Sequence[int], blocks: int, reaches: Sequence[int] = (1, 2, 4, 8), details: Sequence[Sequence[int]] = (),
    sigma_data: float = 0.5,
) -> PyramidUNet:  # fmt: skip
    """See `PyramidUNet`: learns fastest; the one for laptops and short trainings."""
    return PyramidUNet(widths, blocks, reaches, details, sigma_data)


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
