"""One exposure as the posterior sees it: which values were measured, and how well."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.sums import box_sum
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa
from lowlight_kedro.sensor.noise import NoiseModel
from lowlight_kedro.sensor.tiles import TILE_SLOPE

STRIP = 64  # rows at a time: what a strip needs stays in cache
DOUBT = 2.0  # times the mean square of noise: what a local mean adds and is no larger than this is left out


@dataclass(frozen=True)
class Measurement:
    """y = A x + s n on one frame, in network units; A picks the measured channel of each photosite.

    Attributes:
        y: (1, 3, H, W), 0 where nothing was measured (methods rely on it): A^T of the mosaic.
        mask: (1, 3, H, W) of 0 and 1, any type: A^T A.
        s: (1, 3, H, W) standard deviation of the noise on every channel, measured or not.
    """

    y: Tensor
    mask: Tensor
    s: Tensor

    def part(self, rows: slice) -> "Measurement":
        """Some of its rows, as views."""
        return Measurement(self.y[..., rows, :], self.mask[..., rows, :], self.s[..., rows, :])


@dataclass(frozen=True)
class Operator:
    """A: light of the long exposure, network units -> signal of the photosites of the short one, and its adjoint.

    (A x)_i = x_{c(i), i} / (g_c m_i) and signal = A (x0 - zero) + noise, c(i) the channel that photosite i measures,
    m_i its shading. A A^T = diag(1 / g^2): every inverse is diagonal. Without filters A x = x / g, and what is (H, W) below is (3, H, W).

    Attributes:
        gains: g of R, G, B, network units per unit of signal: ratio * white balance * slope of both affine maps.
        zero: network value of no light.
        shading: a gain of each photosite beside that of its channel, (H, W), on the CPU; None: 1.
    """

    cfa: Cfa
    gains: tuple[float, float, float]
    zero: float
    shading: Tensor | None = None

    @classmethod
    def of(
        cls, cfa: Cfa, white_balance: Sequence[float], exposure_ratio: float, scaling: Scaling, shading: Tensor | None = None
    ) -> "Operator":  # fmt: skip
        """For a short exposure that is to look `exposure_ratio` times longer, balanced by `white_balance`."""
        red, green, blue = (gain * exposure_ratio * TILE_SLOPE / scaling.scale for gain in white_balance)
        return cls(cfa, (red, green, blue), scaling.to_network(-1.0), shading)

    def site_gains(self, like: Tensor) -> Tensor:
        """g of each channel and photosite, (1, 3, 1, 1), or (1, 3, H, W) with shading; on the device of `like`, of its type."""
        gains = like.new_tensor(self.gains).reshape(1, 3, 1, 1)
        return gains if self.shading is None else gains * self.shading.to(like)

    def _divided(self, mosaic: Tensor) -> Tensor:
        return mosaic if self.shading is None else mosaic / self.shading.to(mosaic)

    def _sites(self) -> Iterator[tuple[int, tuple[Any, ...], tuple[Any, ...]]]:
        """Of each place of the colour filter's period the channel, and where it lies in a mosaic and in an image: strided views."""
        period = len(self.cfa)
        for row, channels in enumerate(self.cfa):
            for column, channel in enumerate(channels):
                places = slice(row, None, period), slice(column, None, period)
                yield channel, (..., *places), (..., channel, *places)
        if self.cfa == UNFILTERED:
            whole = slice(None), slice(None)
            yield from ((channel, (..., channel, *whole), (..., channel, *whole)) for channel in range(3))

    def apply(self, x: Tensor) -> Tensor:
        """A x: (..., 3, H, W) -> (..., H, W)."""
        mosaic = torch.empty_like(x if self.cfa == UNFILTERED else x[..., 0, :, :])
        for channel, site, here in self._sites():
            mosaic[site] = x[here] / self.gains[channel]
        return self._divided(mosaic)

    def adjoint(self, mosaic: Tensor) -> Tensor:
        """A^T m: (..., H, W) -> (..., 3, H, W), 0 where nothing is measured."""
        x, mosaic = self._nothing(mosaic), self._divided(mosaic)
        for channel, site, here in self._sites():
            x[here] = mosaic[site] / self.gains[channel]
        return x

    def _nothing(self, mosaic: Tensor) -> Tensor:
        """An image of zeros for a mosaic."""
        return torch.zeros_like(mosaic) if self.cfa == UNFILTERED else mosaic.new_zeros((*mosaic.shape[:-2], 3, *mosaic.shape[-2:]))

    def signal(self, x0: Tensor) -> Tensor:
        """What the photosites would show of `x0` without noise: A (x0 - zero)."""
        return self.apply(x0 - self.zero)

    def embed(self, signal: Tensor) -> Tensor:
        """The measured values in network units, A^T (A A^T)^-1 signal + zero; 0 where nothing was measured."""
        y = self._nothing(signal)
        signal = signal if self.shading is None else signal * self.shading.to(signal)
        for channel, site, here in self._sites():
            y[here] = signal[site] * self.gains[channel] + self.zero
        return y

    def mask(self, shape: tuple[int, ...]) -> Tensor:
        """(3, H, W) uint8, 1 where a channel is measured."""
        mask = torch.zeros((3, *shape), dtype=torch.uint8)
        for _, _, here in self._sites():
            mask[here] = 1
        return mask

    def channels(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The channel that each of the photosites (rows, columns) measures."""
        pattern, period = torch.tensor(self.cfa, device=rows.device), len(self.cfa)
        return pattern[rows % period, columns % period]


def observe(signal: NDArray, operator: Operator) -> tuple[Tensor, Tensor]:
    """A mosaic (H, W), 0 = black, 1 = white of the short exposure, not clipped, as `y` and `mask`, both (1, 3, H, W).

    Of three values a pixel (3, H, W) nothing is unknown.
    """
    y = operator.embed(torch.from_numpy(np.asarray(signal, np.float32)))
    return y[None], operator.mask(signal.shape[-2:])[None]


def at_rows(gains: Tensor, rows: slice) -> Tensor:
    """Some rows of gains (1, 3, 1, 1), which are the same everywhere, or (1, 3, H, W)."""
    return gains if gains.shape[-2] == 1 else gains[..., rows, :]


def strips(height: int) -> Iterator[slice]:
    """Rows of a frame, some at a time, so that what is computed on the way is never as large as the frame."""
    for top in range(0, height, STRIP):
        yield slice(top, min(top + STRIP, height))


def _smooth(x: Tensor, rows: slice, reach: int, dtype: torch.dtype | None = None) -> Tensor:
    """Mean over (2 reach + 1)^2 in some rows; frames smaller than the window are continued by their edge, which reflection cannot."""
    height, side, mode = x.shape[-2], 2 * reach + 1, "reflect" if min(x.shape[-2:]) > reach else "replicate"
    top, bottom = max(rows.start - reach, 0), min(rows.stop + reach, height)
    beyond = (reach, reach, reach - (rows.start - top), reach - (bottom - rows.stop))
    part = F.pad(x[..., top:bottom, :].to(dtype or x.dtype), beyond, mode=mode)
    return box_sum(part, reach) / side**2


def noise_levels(
    clean: Tensor, noise: NoiseModel, exposure_ratio: float, white_balance: Sequence[float], scaling: Scaling, reach: int = 4,
    shading: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Standard deviation (1, 3, H, W), network units, of a short exposure whose clean light is `clean` (the same units).

    s = g sqrt(Var(x / g)) with g = ratio * white balance of the channel * shading of the site, and x a *denoised* estimate, smoothed
    over (2 reach + 1)^2 pixels: at the noisy pixel itself the variance would be low wherever the noise is negative.
    """
    operator = Operator.of((), white_balance, exposure_ratio, scaling, shading)
    whole, s = operator.site_gains(clean), torch.empty_like(clean)
    for rows in strips(s.shape[-2]):
        gains = at_rows(whole, rows)
        signal = (_smooth(clean, rows, reach) - operator.zero) / gains
        s[..., rows, :] = noise.variance(signal).sqrt() * gains
    return s


def smoothed(x: Tensor, reach: int) -> Tensor:
    """Mean over (2 reach + 1)^2 windows of a whole frame (1, C, H, W)."""
    mean = torch.empty_like(x)
    for rows in strips(x.shape[-2]):
        mean[..., rows, :] = _smooth(x, rows, reach)
    return mean


def _local_mean(y: Tensor, mask: Tensor, rows: slice, reach: int) -> tuple[Tensor, Tensor]:
    """`local_mean` of some rows, and what fraction of each window was measured."""
    fraction = _smooth(mask, rows, reach, y.dtype).clamp(min=1e-6)
    return _smooth(y, rows, reach) / fraction, fraction


def local_mean(y: Tensor, mask: Tensor, reach: int) -> Tensor:
    """Mean of the measured values in (2 reach + 1)^2 windows, per channel: a first estimate that needs no prior."""
    mean = torch.empty_like(y)
    for rows in strips(y.shape[-2]):
        mean[..., rows, :], _ = _local_mean(y, mask, rows, reach)
    return mean


def steady_mean(y: Tensor, mask: Tensor, reach: int, noise_level: Callable[[Tensor], Tensor]) -> Tensor:
    """`local_mean` where it says more than noise, else that of windows twice and four times as wide.

    From the widest windows to those of `reach`, what the next ones add is shrunk towards 0 by 1 - DOUBT / z (James and Stein 1961), z its
    mean square over the channels in units of the noise of their mean. Of few photons a noise level is then told by many photosites:
    else it follows its own noise, and weighs sites as less sure where they came out bright.

    Args:
        noise_level: s (1, 3, H, W) where the light is an estimate of that shape.
    """
    mean = local_mean(y, mask, 4 * reach)
    for narrower in (2 * reach, reach):
        s = noise_level(mean)
        for rows in strips(y.shape[-2]):
            narrow, fraction = _local_mean(y, mask, rows, narrower)
            added = narrow - mean[..., rows, :]
            z = (added.square() * fraction / s[..., rows, :].square()).mean(1, keepdim=True) * (2 * narrower + 1) ** 2
            mean[..., rows, :] += (1 - DOUBT / z.clamp(min=DOUBT)) * added
    return mean
