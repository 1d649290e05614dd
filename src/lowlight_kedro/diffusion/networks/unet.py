"""U-Nets that read the noise level as image channels, so that it may differ from pixel to pixel."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.networks.convolution import Conv3x3


def check_sides(x: Tensor, multiple: int) -> None:
    """Raise a ValueError where H or W of `x` (B, C, H, W) is no multiple of `multiple`."""
    if x.shape[-1] % multiple or x.shape[-2] % multiple:
        raise ValueError(f"image sides must be multiples of {multiple} for this network, got {tuple(x.shape[-2:])}")


def keep_variance(net: nn.Module) -> None:
    """Weights of variance about 2 / fan-in, biases 0; blocks and the whole network start as the identity and 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in net.modules():
        last = {Block: lambda m: m.convs[1], UNet: lambda m: m.last}.get(type(module))
        if last:
            nn.init.zeros_(last(module).weight)


class Block(nn.Module):
    """x + conv(silu(conv(silu(x))))."""

    residual = True  # may be computed again in the backward pass

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv3x3(width, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        first, second = self.convs
        hidden = F.silu(first(F.silu(x)), inplace=not torch.is_grad_enabled())
        hidden = second(hidden)
        return x + hidden


def unet_reach(levels: int, blocks: int, patch: int) -> int:
    """Pixels that a U-Net of 3 x 3 convolutions sees in each direction, at most.

    Followed backwards through its layers for one row of pixels: each block widens an interval of cells by 2, the first and
    the last layer by 1, and a level halves or doubles it; the most over all places of a pixel in the coarsest cell.
    """

    def seen(first: int, last: int, level: int) -> tuple[int, int]:
        first, last = first - 2 * blocks, last + 2 * blocks
        if level + 1 < levels:
            below, above = seen(first // 2, last // 2, level + 1)
            first, last = min(first, 2 * below), max(last, 2 * above + 1)
        return first - 2 * blocks, last + 2 * blocks

    reaches = []
    for pixel in range(patch * 2 ** (levels - 1)):
        first, last = seen(pixel // patch - 1, pixel // patch + 1, 0)
        reaches += [pixel - patch * (first - 1), patch * (last + 2) - 1 - pixel]
    return max(reaches)


class UNet(nn.Module):
    """A U-Net over pixel-unshuffled input: `patch` = 2 works at half resolution and quarter cost.

    No normalisation and no attention: a pixel sees only its receptive field, so that overlapping windows of a large frame
    agree where they overlap.

    Args:
        widths: channels per level, from fine to coarse; each level halves the resolution.
        blocks: residual blocks per level, on the way down and again on the way up.
        patch: side of the pixel blocks folded into channels.
        channels: channels of the noise level map.
        inputs, outputs: channels of the image in and out; as many as `channels` where not given.
    """

    def __init__(
        self, widths: Sequence[int], blocks: int, *, patch: int, channels: int = 3,
        inputs: int | None = None, outputs: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.reach = unet_reach(len(widths), blocks, patch)

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width) for _ in range(blocks)))

        self.first = Conv3x3(((inputs or channels) + channels) * patch**2, widths[0])
        self.down = nn.ModuleList(stage(width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths[:-1])
        self.up = nn.ModuleList(stage(width) for width in widths)
        self.last = Conv3x3(widths[0], (outputs or channels) * patch**2)
        keep_variance(self)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, inputs, H, W) and ln(sigma) / 4 (B, channels, H, W) to (B, outputs, H, W).

        Raises:
            ValueError: H or W is no multiple of `multiple`.
        """
        check_sides(x, self.multiple)
        return self.trunk(self.first(F.pixel_unshuffle(torch.cat([x, c_noise], dim=1), self.patch)))

    def trunk(self, x: Tensor) -> Tensor:
        """What follows the first layer: (B, widths[0], H / patch, W / patch) to (B, outputs, H, W)."""
        skips = []
        for down, shrink in zip(self.down, self.shrink, strict=False):
            x = down(x)
            skips.append(x)
            x = shrink(x)
        x = self.up[-1](self.down[-1](x))
        for level in reversed(range(len(skips))):
            x = F.pixel_shuffle(self.grow[level](x), 2)
            x = self.up[level](self.join[level](torch.cat([x, skips.pop()], dim=1)))
        return F.pixel_shuffle(self.last(x), self.patch)


def raw_unet(*, widths: Sequence[int], blocks: int) -> UNet:
    """The fast one for linear tiles: works on 2x2 pixel blocks, no normalisation, no attention."""
    return UNet(widths, blocks, patch=2)
