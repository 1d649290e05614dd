"""Convolutions of 3 x 3 pixels, by Winograd's algorithm where that is faster, and some rows at a time where that needs less memory."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

LEAST = 48  # channels in and out, below which transforms cost more than they save
ROWS = 32  # at a time: 64 channels of them stay in cache


@cache
def has_winograd() -> bool:
    """Whether this build of torch has NNPACK, which knows Winograd's F(6, 3), and the processor is one where it is faster.

    With AVX2 it takes about two thirds of the time of oneDNN's direct convolution, which is 90 % of what such a processor can do
    (docs/frames.md). AVX-512 makes direct convolutions twice as fast and NNPACK no faster.
    """
    known = hasattr(torch, "_nnpack_available") and hasattr(torch, "_nnpack_spatial_convolution")
    faster = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return known and faster and torch._nnpack_available()  # noqa: SLF001 - it has no other name, and readies NNPACK besides


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` of 3 x 3 pixels with a padding of 1, for fewer products without gradients; the same to rounding.

    Winograd's algorithm (Lavin & Gray 2016) makes 6 x 6 outputs of 64 products a channel instead of 324. A restored frame changes by 1e-7
    of white, root mean square.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        if self._by_winograd(x):
            return torch._nnpack_spatial_convolution(x, self.weight, self.bias, (1, 1), (1, 1))  # noqa: SLF001 - likewise
        return super().forward(x)

    def _by_winograd(self, x: Tensor) -> bool:
        fits = x.device.type == "cpu" and x.dtype == torch.float32 and min(self.in_channels, self.out_channels) >= LEAST
        special = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        return fits and not special and has_winograd()


def fastest_layout(network: nn.Module, device: torch.device, precision: str) -> torch.memory_format:
    """Of weights and what goes through them: Winograd's algorithm wants each channel by itself, all other convolutions its pixels."""
    own = any(isinstance(module, Conv3x3) for module in network.modules())
    return torch.contiguous_format if own and device.type == "cpu" and precision == "fp32" and has_winograd() else torch.channels_last


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, reach: int = 1) -> Tensor:
    """function(x) for a `function` that keeps H and W and sees `reach` rows in each direction, at most `ROWS` at a time without gradients.

    What it makes on the way is then never as large as `x` (B, C, H, W).
    """
    if torch.is_grad_enabled() or x.shape[-2] <= 2 * ROWS:
        return function(x)
    parts, height = [], x.shape[-2]
    for top in range(0, height, ROWS):
        first, bottom = max(top - reach, 0), min(top + ROWS, height)
        parts.append(function(x[..., first : bottom + reach, :])[..., top - first : bottom - first, :])
    return torch.cat(parts, -2)
