"""A network for mosaics of little noise: it demosaics and denoises at once, on a scale where shadows count as they are seen."""

from collections.abc import Sequence
from math import lcm

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.networks.convolution import Conv3x3, by_rows
from lowlight_kedro.diffusion.networks.unet import UNet, check_sides
from lowlight_kedro.diffusion.sums import box_sum_padded

UNKNOWN = 40.0  # network units: a value of a higher level was not measured
FARTHEST = 8.0  # standard deviations by which a measured value may be moved
DARK = 1e-3  # light, white = 1, below which `shown` is linear
NEARBY = 2  # pixels, reach of the means that stand for what was not measured
QUIETEST = 1e-6  # light: less noise than this is no noise
PATTERNS = {  # channel of each site of a cell: the phase in which the network is given every mosaic
    "bayer": ((1, 0), (2, 1)),
    "xtrans": (
        (1, 2, 1, 1, 0, 1), (0, 1, 0, 2, 1, 2), (1, 2, 1, 1, 0, 1), (1, 0, 1, 1, 2, 1), (2, 1, 2, 0, 1, 0), (1, 0, 1, 1, 2, 1),
    ),
}  # fmt: skip


def shown(light: Tensor) -> Tensor:
    """light / sqrt(|light| + DARK): about its square root, so about as a screen shows it; odd, so that noise below black stays."""
    return light * (light.abs() + DARK).rsqrt()


def light_of(value: Tensor) -> Tensor:
    """The inverse of `shown`."""
    return value * (value.abs() + (value.square() + 4 * DARK).sqrt()) / 2


def phases(measured: Tensor, pattern: Tensor) -> list[tuple[int, int]]:
    """Per image of `measured` (B, 3, H, W), the first row and column at which its mosaic begins like `pattern` (P, P).

    The most frequent channel at each place of a cell decides, so that single unmeasured sites do not.
    """
    side = len(pattern)
    whole = measured[..., : measured.shape[-2] // side * side, : measured.shape[-1] // side * side]
    counts = F.pixel_unshuffle(whole.float(), side).mean((-1, -2)).unflatten(1, (3, side, side))  # (B, 3, P, P)
    wanted = F.one_hot(pattern, 3).permute(2, 0, 1).to(counts)
    scores = [(counts * wanted.roll((row, column), (1, 2))).sum((1, 2, 3)) for row in range(side) for column in range(side)]
    return [divmod(best, side) for best in torch.stack(scores, 1).argmax(1).tolist()]


class MosaicNet(nn.Module):
    """D of a mosaic: a small U-Net denoises the sites, then convolutions over cells and one layer at full resolution demosaic them.

    The second part is the network of Gharbi et al. 2016, the first what it lacks: what it moves a site by is in units of the site's
    noise, so that without noise it does nothing. Values are light on the scale of `shown`; the noise level comes as two further
    inputs per site, of the light and of its shown value. Measured values are moved by 8 sigma at most, so that D(x; sigma -> 0) = x
    holds where something was measured. It knows mosaics only: an image whose channels were all measured is none of its business.

    Args:
        mosaic: `bayer` (cells of 2 x 2 become channels) or `xtrans` (full resolution), in any phase.
        width, depth: channels and number of the convolutions over cells.
        black, white: network units of no light and of white.
        front: channels per level of the U-Net, which has a block each; none: there is no U-Net, and mosaics must be clean.
        trained: `all`, or `front` alone, while the rest stays as it began.
        sigma_data: of the preconditioning around this network; it must be the denoiser's.
    """

    def __init__(
        self, mosaic: str, width: int, depth: int, black: float, white: float, sigma_data: float, front: Sequence[int], trained: str
    ) -> None:  # fmt: skip
        super().__init__()
        if mosaic not in PATTERNS:
            raise ValueError(f"mosaic must be one of {', '.join(PATTERNS)}, got {mosaic!r}")
        if trained not in ("all", "front") or (trained == "front" and not front):
            raise ValueError(f"trained must be all, or front where there is one, got {trained!r} with front {list(front)}; set it to all")
        self.black, self.white, self.sigma_data = black, white, sigma_data
        self.pattern: Tensor
        self.register_buffer("pattern", torch.tensor(PATTERNS[mosaic]), persistent=False)
        self.patch = patch = 2 if mosaic == "bayer" else 1
        self.side = len(PATTERNS[mosaic])
        self.front = UNet(front, 1, patch=2, channels=2, inputs=4, outputs=1) if front else None
        self.multiple = lcm(self.side, self.front.multiple) if self.front else patch  # windows of a frame then begin in the same phase
        self.reach = (self.front.reach if self.front else 0) + patch * (depth + 2) + 2 + self.side
        planes = 4 if mosaic == "bayer" else 3
        noise = 2 * patch**2
        self.first = Conv3x3(planes + noise, width)
        self.convs = nn.ModuleList(Conv3x3(width, width) for _ in range(depth - 2))
        self.last = Conv3x3(width, 2 * width if mosaic == "bayer" else width)
        self.finer = nn.Conv2d(width, 12, 1) if mosaic == "bayer" else nn.Identity()
        self.full = Conv3x3(6 if mosaic == "bayer" else 3 + width, width)
        self.out = nn.Conv2d(width, 3, 1)
        if trained == "front" and self.front:
            self.requires_grad_(False)
            self.front.requires_grad_(True)

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, 3, H, W) and ln(sigma) / 4 of the same shape to F = (D - c_skip x) / c_out."""
        check_sides(scaled, self.multiple)
        sigma, span = (4 * c_noise.float()).exp(), self.white - self.black
        c_skip, c_out, c_in = coefficients(sigma, self.sigma_data)
        x = scaled.float() / c_in
        denoised = self.black + span * self.light((x - self.black) / span, sigma / span)
        near = FARTHEST * sigma
        denoised = torch.where(sigma < UNKNOWN, torch.minimum(torch.maximum(denoised, x - near), x + near), denoised)
        return (denoised - c_skip * x) / c_out

    def light(self, light: Tensor, sigma: Tensor) -> Tensor:
        """Clean light (B, 3, H, W), white = 1, of a mosaic in any phase with noise `sigma`, huge where nothing was measured."""
        starts = phases(self._measured(sigma), self.pattern)
        begins = torch.tensor([start == (0, 0) for start in starts], device=light.device)
        if begins.all():
            return self._light(light, sigma)
        if not begins.any():
            return self._cut(light, sigma, starts)
        answer = torch.empty_like(light)
        answer[begins] = self._light(light[begins], sigma[begins])
        answer[~begins] = self._cut(light[~begins], sigma[~begins], [start for start in starts if any(start)])
        return answer

    def _measured(self, sigma: Tensor) -> Tensor:
        return sigma < UNKNOWN / (self.white - self.black)

    def _cut(self, light: Tensor, sigma: Tensor, starts: Sequence[tuple[int, int]]) -> Tensor:
        """`_light` of mirrored and cut images, so that each begins at its place in `starts`."""
        (height, width), before, after = light.shape[-2:], self.side, lcm(self.side, self.multiple)
        padded = F.pad(torch.cat([light, sigma], 1), (before, after, before, after), mode="reflect")
        cut = [image[:, row : row + height + after, left : left + width + after] for image, (row, left) in zip(padded, starts, strict=True)]
        answer = self._light(*(torch.stack([image[part] for image in cut]) for part in (slice(3), slice(3, 6))))
        own = [(slice(before - row, before - row + height), slice(before - left, before - left + width)) for row, left in starts]
        return torch.stack([image[:, rows, columns] for image, (rows, columns) in zip(answer, own, strict=True)])

    def _light(self, light: Tensor, sigma: Tensor) -> Tensor:
        """`light` of a mosaic that begins as `pattern`."""
        measured = self._measured(sigma).to(light)
        mosaic, known = (light * measured).sum(1, keepdim=True), measured.amax(1, keepdim=True)
        local = box_sum_padded(mosaic, NEARBY) / box_sum_padded(known, NEARBY).clamp(min=1e-6)
        level = torch.where(known > 0, (sigma * measured).sum(1, keepdim=True).clamp(min=QUIETEST), 1.0)
        level_shown = (level * (local.abs() + DARK).rsqrt()).clamp(max=1)
        noise = torch.cat([level.log() / 4 + 1.5, level_shown.log() / 2 + 2], 1)
        sites = torch.where(known > 0, shown(mosaic), shown(local))  # where nothing was measured, what its neighbours say
        if self.front:
            sites = sites + level_shown * self.front(torch.cat([sites, measured], 1), noise).float()
        value = sites * measured
        planes = torch.cat([value, noise], 1)
        if self.patch == 2:
            planes = F.pixel_unshuffle(torch.cat([sites, noise], 1), 2)
        hidden = F.relu_(self.first(planes))
        for conv in self.convs:
            hidden = F.relu_(conv(hidden))
        hidden = F.relu_(self.last(hidden))
        if self.patch == 2:
            signal, gate = hidden.chunk(2, 1)
            hidden = F.pixel_shuffle(self.finer(signal * gate), 2)
        return by_rows(self._finished, torch.cat([value.to(hidden), hidden], 1))

    def _finished(self, hidden: Tensor) -> Tensor:
        """Light of what the last layers are given; at full resolution, the largest tensors of all."""
        return light_of(self.out(F.relu_(self.full(hidden))).float())


def mosaic_net(
    *, mosaic: str, black: float, white: float, width: int = 64, depth: int = 15, sigma_data: float = 0.5,
    front: Sequence[int] = (32, 64, 96), trained: str = "all",
) -> MosaicNet:  # fmt: skip
    """See `MosaicNet`."""
    return MosaicNet(mosaic, width, depth, black, white, sigma_data, front, trained)
