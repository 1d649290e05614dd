"""Estimates of an image from its neighbourhoods, exact where it is flat."""

import torch.nn.functional as F
from torch import Tensor

from lowlight_kedro.diffusion.sums import moving_sum


def windowed(x: Tensor, reach: int) -> Tensor:
    """Sums over (2 reach + 1)^2 windows, zero outside the image; (B, C, H, W) to the same."""
    side = 2 * reach + 1
    return moving_sum(moving_sum(F.pad(x, (reach, reach, reach, reach)), side, -2), side, -1) if reach else x


class LocalMeans:
    """Local estimates of an image with noise of level `sigma`, both (B, C, H, W), of data N(0, `sd`^2); windows are summed once each."""

    def __init__(self, x: Tensor, sigma: Tensor, sd: float) -> None:
        self._precision = sigma.pow(-2)
        self._weighted = self._precision * x
        self._prior = sd**-2
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def _window(self, reach: int) -> tuple[Tensor, Tensor]:
        if reach not in self._windows:
            weights = windowed(self._precision, reach)
            self._windows[reach] = windowed(self._weighted, reach) / (weights + self._prior), weights
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
        return weights / windowed(weights.new_ones(1, 1, *weights.shape[-2:]), reach)
