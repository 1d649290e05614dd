"""The U-Nets of the papers: full resolution, GroupNorm, attention, and blocks that are told the noise level."""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.networks.residual import ADM, DDPMPP, BlockStyle, LevelEmbedding, Residual, Resize, SelfAttention, group_norm
from lowlight_kedro.diffusion.networks.unet import check_sides

Plan = Iterator[tuple[int, int, Resize, int, bool]]  # of blocks: channels in, channels out, resize, level, last of its level


def way_down(widths: Sequence[int], blocks: int) -> Plan:
    """The blocks of the encoder, which begins with widths[0] channels."""
    for level, (before, width) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
        if level:
            yield before, before, "halve", level, False
        for number in range(blocks):
            yield (width if number else before), width, "keep", level, number == blocks - 1


def way_up(widths: Sequence[int], blocks: int) -> Plan:
    """The blocks of the decoder; those that keep the resolution are given what the encoder left, the last first."""
    left = [widths[0], *(outputs for _, outputs, _, _, _ in way_down(widths, blocks))]
    before = widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        if level < len(widths) - 1:
            yield before, before, "double", level, False
        for number in range(blocks + 1):
            yield before + left.pop(), width, "keep", level, number == blocks
            before = width


def begin_quietly(net: nn.Module) -> None:
    """Xavier's uniform weights, biases 0; every block's and the network's last layer, and the map's channels, start at 0.

    So an untrained network answers 0, and a map means its mean until training with maps teaches more.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, Residual):
            nn.init.zeros_(module.conv_out.weight)
        if isinstance(module, SelfAttention):
            nn.init.zeros_(module.out.weight)
        if isinstance(module, EmbeddedUNet):
            nn.init.zeros_(module.last.weight)
            nn.init.zeros_(module.first.weight[:, module.channels :])


class EmbeddedUNet(nn.Module):
    """F(x; c_noise): every block is told the image's mean c_noise, and the map's deviations from it are image channels.

    With one level per image the deviations are 0 and this is the paper's network; a map loses nothing, because mean and
    deviations together are the map. There is no dropout: it costs a tenth of a step on a CPU, and masks from a global
    generator would depend on how a batch is split into passes and ranks.

    Args:
        widths: channels per level, from fine to coarse; each level halves the resolution.
        blocks: residual blocks per level on the way down; one more on the way up.
        style: see `BlockStyle`.
        attention: levels whose blocks attend to all pixels, 0 the finest; between the two ways there is always one.
        channels: of the image, and of the map.
    """

    reach = None  # GroupNorm and attention see the whole image

    def __init__(
        self, widths: Sequence[int], blocks: int, style: BlockStyle, *, attention: Collection[int] = (), channels: int = 3
    ) -> None:
        super().__init__()
        if not set(attention) <= set(range(len(widths))):
            raise ValueError(f"attention must name levels in 0 ... {len(widths) - 1}, got {list(attention)}")
        self.multiple, self.channels = 2 ** (len(widths) - 1), channels

        def block(inputs: int, outputs: int, *, resize: Resize = "keep", attends: bool = False) -> Residual:
            return Residual(inputs, outputs, 4 * widths[0], style, resize=resize, attends=attends)

        def way(plan: Plan, *, each: bool) -> nn.ModuleList:
            return nn.ModuleList(
                block(inputs, outputs, resize=resize, attends=resize == "keep" and level in attention and (each or last))
                for inputs, outputs, resize, level, last in plan
            )

        self.embedding = LevelEmbedding(widths[0], style)
        self.first = nn.Conv2d(2 * channels, widths[0], 3, padding=1)
        self.down = way(way_down(widths, blocks), each=True)
        self.middle = nn.ModuleList([block(widths[-1], widths[-1], attends=True), block(widths[-1], widths[-1])])
        self.up = way(way_up(widths, blocks), each=style.attends_always)
        self.norm = group_norm(widths[0], style.epsilon)
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)
        begin_quietly(self)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, C, H, W) and ln(sigma) / 4 of the same shape to F (B, C, H, W).

        Raises:
            ValueError: H or W is no multiple of `multiple`.
        """
        check_sides(x, self.multiple)
        level = c_noise.mean(dim=(1, 2, 3))
        embedding = self.embedding(level)
        x = self.first(torch.cat([x, c_noise - level[:, None, None, None]], dim=1))
        left = [x]
        for block in self.down:
            x = block(x, embedding)
            left.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for block in self.up:
            x = block(torch.cat([x, left.pop()], dim=1) if block.resize == "keep" else x, embedding)
        return self.last(F.silu(self.norm(x)))


def ddpmpp(*, widths: Sequence[int], blocks: int, attention: Collection[int] = ()) -> EmbeddedUNet:
    """DDPM++ (Song et al. 2021) as Karras et al. 2022 train it: the level is added, sums are scaled by sqrt(1/2), one head."""
    return EmbeddedUNet(widths, blocks, DDPMPP, attention=attention)


def adm(*, widths: Sequence[int], blocks: int, attention: Collection[int] = ()) -> EmbeddedUNet:
    """ADM (Dhariwal & Nichol 2021): the level scales and shifts the norms, heads of 64 channels in all blocks that attend."""
    return EmbeddedUNet(widths, blocks, ADM, attention=attention)
