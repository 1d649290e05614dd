"""U-Nets of full resolution whose residual blocks are told the noise level: DDPM++ (Song et al. 2021), ADM (Dhariwal & Nichol 2021)."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.networks.unet import check_sides

SLOWEST = 10_000.0  # ratio of the highest to the lowest frequency of the noise level's features (Vaswani et al. 2017)
Resize = Literal["keep", "halve", "double"]


@dataclass(frozen=True)
class BlockStyle:
    """In what the two families differ.

    Attributes:
        scales: the noise level scales and shifts the second norm's output (ADM); else it is added before that norm.
        skip_scale: of each sum x + f(x); sqrt(1/2) keeps its variance (DDPM++).
        head: channels of an attention head; None: one head.
        projects: resampling blocks have a 1 x 1 convolution on the skip path even where its width stays (DDPM++).
        attends_always: every block on the way up attends at the chosen levels (ADM); else the last of a level.
        epsilon: of GroupNorm.
        closed: the lowest frequency of the noise level's features is 1 / SLOWEST itself (DDPM++).
    """

    scales: bool
    skip_scale: float
    head: int | None
    projects: bool
    attends_always: bool
    epsilon: float
    closed: bool


DDPMPP = BlockStyle(scales=False, skip_scale=0.5**0.5, head=None, projects=True, attends_always=False, epsilon=1e-6, closed=True)
ADM = BlockStyle(scales=True, skip_scale=1.0, head=64, projects=False, attends_always=True, epsilon=1e-5, closed=False)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


def group_norm(width: int, epsilon: float) -> nn.GroupNorm:
    """Up to 32 groups of at least 4 channels."""
    return nn.GroupNorm(largest_divisor(width, min(32, max(1, width // 4))), width, eps=epsilon)


def resized(x: Tensor, resize: Resize) -> Tensor:
    """Means of 2 x 2 pixels, each pixel 2 x 2 times, or `x` itself."""
    if resize == "keep":
        return x
    return F.avg_pool2d(x, 2) if resize == "halve" else F.interpolate(x, scale_factor=2.0, mode="nearest")


def conv_of_doubled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv`, 3 x 3, of each pixel of `x` 2 x 2 times: as one transposed convolution, with 4 products where there were 9.

    A doubled row meets each input pixel with two neighbouring taps or with one: the sums of two neighbours of the zero-padded
    kernel are a 4 x 4 kernel of stride 2.
    """
    sums = F.avg_pool2d(F.pad(conv.weight, (1, 1, 1, 1)), 2, stride=1) * 4
    return F.conv_transpose2d(x, sums.flip(-1, -2).transpose(0, 1), conv.bias, stride=2, padding=1)


def level_features(level: Tensor, count: int, *, closed: bool) -> Tensor:
    """Sines, then cosines of `level` (B,) at count / 2 frequencies from 1 down to 1 / SLOWEST, (B, count)."""
    half = count // 2
    steps = torch.arange(half, device=level.device, dtype=level.dtype) / max(half - closed, 1)
    angles = level[:, None] * SLOWEST**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class LevelEmbedding(nn.Module):
    """c_noise per image, (B,), to a vector (B, 4 width) that all blocks are told."""

    def __init__(self, width: int, style: BlockStyle) -> None:
        super().__init__()
        self.width, self.closed = width, style.closed
        self.layers = nn.ModuleList([nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)])

    def forward(self, level: Tensor) -> Tensor:
        """See the class."""
        features = level_features(level, self.width, closed=self.closed)
        for layer in self.layers:
            features = F.silu(layer(features))
        return features


class SelfAttention(nn.Module):
    """(x + self-attention over all pixels of norm(x)) * skip_scale."""

    def __init__(self, width: int, style: BlockStyle) -> None:
        super().__init__()
        self.heads = largest_divisor(width, max(1, width // (style.head or width)))
        self.skip_scale = style.skip_scale
        self.norm = group_norm(width, style.epsilon)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        heads = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = heads.transpose(-1, -2).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return (x + self.out(mixed.transpose(-1, -2).reshape(x.shape))) * self.skip_scale


class Residual(nn.Module):
    """(skip(x) + conv(silu(emb norm(conv(silu(norm(x))))))) * skip_scale, then attention where `attends`.

    Args:
        inputs, outputs: channels. embedding: length of the vector that describes the noise level.
        resize: resolution, changed before the first convolution and on the skip path.
    """

    residual = True  # may be computed again in the backward pass

    def __init__(
        self, inputs: int, outputs: int, embedding: int, style: BlockStyle, *, resize: Resize = "keep", attends: bool = False
    ) -> None:
        super().__init__()
        self.resize, self.scales, self.skip_scale = resize, style.scales, style.skip_scale
        projects = inputs != outputs or (style.projects and resize != "keep")
        self.norm_in = group_norm(inputs, style.epsilon)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.tell = nn.Linear(embedding, outputs * (2 if style.scales else 1))
        self.norm_out = group_norm(outputs, style.epsilon)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if projects else nn.Identity()
        self.attention = SelfAttention(outputs, style) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, embedding) to (B, outputs, H', W')."""
        hidden = F.silu(self.norm_in(x))
        doubles = self.resize == "double"
        hidden = conv_of_doubled(self.conv_in, hidden) if doubles else self.conv_in(resized(hidden, self.resize))
        hidden = self.conv_out(F.silu(self.tempered(hidden, self.tell(embedding)[:, :, None, None])))
        # a 1 x 1 convolution and resampling by 2 change places freely: do it at the lower resolution
        kept = resized(self.skip(x), self.resize) if doubles else self.skip(resized(x, self.resize))
        return self.attention((kept + hidden) * self.skip_scale)

    def tempered(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """The second norm of `hidden`, with what the block is told of the noise level."""
        if not self.scales:
            return self.norm_out(hidden + embedding)
        scale, shift = embedding.chunk(2, dim=1)
        return torch.addcmul(shift, self.norm_out(hidden), 1 + scale)


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
