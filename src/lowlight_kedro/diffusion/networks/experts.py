"""Several networks as one: each where it works best, by what was measured and how noisy it is; and second opinions.

A second opinion answers a mosaic again: what a first network made of it, demosaiced by another one, and followed as far as both deserve.
"""

from collections.abc import Mapping
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import coefficients
from lowlight_kedro.diffusion.networks.mosaic import DARK, PATTERNS, QUIETEST, UNKNOWN, MosaicNet, mosaic_net, phases, shown
from lowlight_kedro.diffusion.networks.unet import check_sides
from lowlight_kedro.diffusion.sums import box_sum_padded
from lowlight_kedro.diffusion.symmetries import turned, turned_back

CLEAN, HIDDEN = 1e-3, 1e3  # light, white = 1: the noise that the second network is told of its sites, and of what it has to find
NEARBY = 4  # pixels, reach of the mean misfit, and of the mean noise that the gate is told
DOUBT = 1.5  # a mean misfit, in units of the noise's variance, that may be chance
SLIGHT = 0.01  # of shown white: finer than this two answers hardly differ
TURNS = 0, 3, 4, 7  # symmetries: as it is, upside down, rows for columns, both; as each every pattern of ours is the same in another phase
FOLLOWED = 1 / 2, 5 / 8  # how far an answer is followed without a gate, and how far the mean of several
CELL = 8  # pixels a side over which the noise is averaged; windows begin at multiples of it, so their cells agree
STRAYS = 0.1  # fraction of measured values that may lie outside of a mosaic: a window mirrored at the frame's rim is none there


def sites_of(measured: Tensor, pattern: Tensor) -> Tensor:
    """All sites (B, 3, H, W) of the mosaic of `pattern` (P, P) that `measured` shows part of, in its phase."""
    (height, width), side, device = measured.shape[-2:], len(pattern), measured.device
    whole = F.one_hot(pattern.to(device), 3).permute(2, 0, 1).bool()
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    starts = phases(measured, pattern)
    return torch.stack([whole[:, ((rows - row) % side)[:, None], (columns - column) % side] for row, column in starts])


def follows(measured: Tensor, pattern: Tensor) -> Tensor:
    """Which images of `measured` (B, 3, H, W) are mosaics of `pattern` (P, P) in any phase, but for sites that were not measured; (B,)."""
    inside = (measured & sites_of(measured, pattern)).sum((1, 2, 3))
    return inside > (1 - STRAYS) * measured.sum((1, 2, 3))


def noise_seen(light: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
    """sigma / sqrt(light + DARK) where something was measured, twice the shown noise, averaged over some cells; (B, 1, H, W)."""
    pooled = F.avg_pool2d(torch.cat([light * measured, sigma.square() * measured, measured.to(light)], 1), CELL)
    pooled = F.avg_pool2d(pooled, 3, 1, 1, count_include_pad=False).unflatten(1, (3, -1)).sum(2)
    mean, variance, count = pooled.unbind(1)
    seen = (variance / ((mean.abs() + DARK * count).clamp(min=1e-12))).sqrt()[:, None]
    return F.interpolate(seen, scale_factor=float(CELL), mode="bilinear", align_corners=False)


def quiet(light: Tensor, sigma: Tensor, measured: Tensor, fade: tuple[float, float]) -> Tensor:
    """From 1, where `noise_seen` is at most the first of `fade`, to 0, from the second on; (B, 1, H, W)."""
    return ((fade[1] - noise_seen(light, sigma, measured)) / (fade[1] - fade[0])).clamp(0, 1)


def nearer(mean: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """D moved towards the measured x where it misses that by more than noise does; (B, 3, H, W) all, in the same units.

    D + max(0, 1 - DOUBT / z) (x - D), z the mean of (x - D)^2 / sigma^2 of the measured values around: the positive-part estimator of
    James and Stein (1961) about D. Where z is what noise makes it, 1 or less, D stays.
    """
    measured = sigma < UNKNOWN
    missed = torch.where(measured, x - mean, 0)
    squares = (missed / sigma).square().sum(1, keepdim=True), measured.to(missed).sum(1, keepdim=True)
    square, count = (box_sum_padded(one, NEARBY) for one in squares)
    return mean + (1 - DOUBT * count / square.clamp(min=1e-12)).clamp(min=0) * missed


class Second(nn.Module):
    """Light of a mosaic, from the light D that a first network made of it.

    D, `nearer` to what was measured, is sampled as a mosaic again, in which hardly any noise is left, and `network` demosaics that. The
    answer is D + g (D2 - D) where nothing was measured, g as `FOLLOWED` or in (0, 1) by convolutions that see both answers and the noise.
    Networks that learned apart err apart, so that a mean of both errs less than either; and a demosaicer of clean mosaics need not
    know what noise is. Measured values stay as they were given, and with them D(x; sigma -> 0) = x.

    Where the mosaic is quiet, what demosaics well counts most, and D2 is the mean of the answers to several turned copies.

    Args:
        network: without a front.
        width: channels of the gate, which answers 1/2 untrained; 0: there is none.
        fade: noise up to which copies are turned, see `quiet`; None: none are.
        turns: how many of `TURNS`.
    """

    def __init__(self, network: MosaicNet, width: int, fade: tuple[float, float] | None = None, turns: int = 1) -> None:
        super().__init__()
        self.network, self.fade, self.turns = network, fade, turns
        self.gate: nn.Sequential | None = None
        if width:
            self.gate = nn.Sequential(
                nn.Conv2d(14, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
                nn.Conv2d(width, 3, 1),
            )  # fmt: skip
            nn.init.zeros_(self.gate[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.gate[-1].bias)  # type: ignore[arg-type]
        self.multiple = lcm(CELL, network.side, network.multiple)  # windows of a frame then begin in the same phase
        self.reach = max(network.reach + NEARBY + 3, 3 * CELL)

    @property
    def pattern(self) -> Tensor:
        """Of the mosaic, see `PATTERNS`."""
        return self.network.pattern

    def forward(self, light: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
        """Mean light (B, 3, H, W), white = 1, the noise of what was measured, and where that was, to the light to be followed."""
        weight = torch.zeros_like(sigma[:, :1]) if self.fade is None else quiet(light, sigma, measured, self.fade)
        other = self._answered(light, sites_of(measured, self.pattern), weight)
        if self.gate is None:
            followed = FOLLOWED[0] + (FOLLOWED[1] - FOLLOWED[0]) * weight
        else:
            followed = self.gate(self._seen(light, other, sigma, measured)).float().sigmoid()
        return torch.where(measured, light, torch.lerp(light, other, followed))

    def _answered(self, light: Tensor, sites: Tensor, weight: Tensor) -> Tensor:
        """What the network makes of the light at all sites of a mosaic; by `weight` (B, 1, H, W) that of turned copies as well."""
        once = self._demosaiced(light, sites)
        counts = weight.amax((1, 2, 3)) > 0
        if self.turns == 1 or not counts.any():
            return once
        light, sites, weight = light[counts], sites[counts], weight[counts]
        turns = TURNS[1 : self.turns]
        others = [turned_back(self._demosaiced(turned(light, turn), turned(sites, turn)), turn) for turn in turns]
        several = sum(others, once[counts]) / self.turns
        return once.index_put((counts,), torch.lerp(once[counts], several, weight))

    def _demosaiced(self, light: Tensor, sites: Tensor) -> Tensor:
        return self.network.light(light, torch.where(sites, CLEAN, HIDDEN))

    @staticmethod
    def _seen(light: Tensor, other: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
        """What the gate is shown, (B, 14, H, W): the first answer and how far the other one is from it, what was measured and how well."""
        known = box_sum_padded(measured.to(light).sum(1, keepdim=True), NEARBY).clamp(min=1e-6)
        variance = box_sum_padded((sigma.square() * measured).sum(1, keepdim=True), NEARBY) / known
        level = variance.clamp(min=QUIETEST**2).sqrt()
        level_shown = level * (light.mean(1, keepdim=True).abs() + DARK).rsqrt()
        first, apart = shown(light), shown(other) - shown(light)
        noise = level.log() / 4 + 1.5, level_shown.log() / 2 + 2
        return torch.cat([first, 10 * apart, (apart / (level_shown + SLIGHT)).tanh(), measured.to(light), *noise], 1)


class Seconds(nn.ModuleDict):
    """(D, sigma) -> D of the images that are mosaics of one of these, network units, (B, 3, H, W); of all others as it is.

    Args:
        second: by the name of the mosaic.
        black, white: network units of no light and of white.
    """

    def __init__(self, second: Mapping[str, Second], black: float, white: float) -> None:
        super().__init__(second)
        self.black, self.white = black, white
        self.multiple = lcm(*(own.multiple for own in second.values()))
        self.reach = max(own.reach for own in second.values())

    def asked(self, mean: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """What they are asked of: D, in mosaics `nearer` to what was measured."""
        sigma = sigma.expand(mean.shape)
        fits = torch.stack([follows(sigma < UNKNOWN, second.pattern) for second in self.values()]).any(0)  # type: ignore[arg-type]
        return torch.where(fits[:, None, None, None], nearer(mean, x, sigma), mean) if fits.any() else mean

    def forward(self, mean: Tensor, sigma: Tensor) -> Tensor:
        """See the class; sigma is what was measured with, more than `UNKNOWN` where nothing was."""
        sigma, span = sigma.expand(mean.shape).float(), self.white - self.black
        measured = sigma < UNKNOWN
        for second in self.values():
            fits = follows(measured, second.pattern)  # type: ignore[arg-type]
            if fits.any():
                answer = second((mean[fits].float() - self.black) / span, sigma[fits] / span, measured[fits])
                mean = mean.index_put((fits,), (self.black + span * answer).to(mean))
        return mean


class Expert(nn.Module):
    """A network for one mosaic and the noise up to which it is asked.

    Args:
        mosaic: name of its pattern in `PATTERNS`.
        fade: (from, to), see `noise_seen`: up to the first the network has weight 1, from the second on 0.
    """

    def __init__(self, network: nn.Module, mosaic: str, fade: tuple[float, float]) -> None:
        super().__init__()
        if mosaic not in PATTERNS or not 0 < fade[0] < fade[1]:
            raise ValueError(f"mosaic must be one of {', '.join(PATTERNS)} and fade 0 < from < to, got {mosaic!r}, {list(fade)}")
        self.network, self.fade = network, fade
        self.pattern: Tensor
        self.register_buffer("pattern", torch.tensor(PATTERNS[mosaic]), persistent=False)

    def weight(self, light: Tensor, sigma: Tensor, measured: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1]; light, 1 = white, and its noise (B, 3, H, W), where it was measured."""
        fits = follows(measured, self.pattern)
        if not fits.any():
            return torch.zeros_like(sigma[:, :1])
        return fits[:, None, None, None] * quiet(light, sigma, measured, self.fade)


class Experts(nn.Module):
    """F of `general`, and of a mosaic's own network where that mosaic is quiet, with a smooth change between.

    All share units and preconditioning, so a mean of their F is the same mean of their D. Only those that count are evaluated.

    Args:
        general: for any noise map.
        mosaics: experts by name.
        second: what is asked once more, of D; see `Denoiser`.
        black, white: network units of no light and of white.
    """

    def __init__(
        self, general: nn.Module, mosaics: Mapping[str, Expert], second: Seconds | None, black: float, white: float, sigma_data: float
    ) -> None:
        super().__init__()
        self.general, self.mosaics, self.second = general, nn.ModuleDict(mosaics), second
        self.black, self.white, self.sigma_data = black, white, sigma_data
        networks = [general, *(expert.network for expert in mosaics.values())]
        self.multiple = lcm(CELL, *(getattr(network, "multiple", 1) for network in networks))
        reaches = [getattr(network, "reach", None) for network in networks]
        own = None if None in reaches else max(3 * CELL, *(reach for reach in reaches if reach is not None))
        self.reach = own if own is None or second is None else own + NEARBY

    def forward(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Images (B, 3, H, W) and ln(sigma) / 4 of the same shape to F."""
        check_sides(scaled, self.multiple)
        left, answer = torch.ones_like(scaled[:, :1], dtype=torch.float32), torch.zeros_like(scaled, dtype=torch.float32)
        for name, weight in self.weights(scaled, c_noise).items():
            answer = _added(answer, self.mosaics[name].network, weight, scaled, c_noise)  # type: ignore[union-attr, arg-type]
            left = left - weight
        return _added(answer, self.general, left, scaled, c_noise)

    def weights(self, scaled: Tensor, c_noise: Tensor) -> dict[str, Tensor]:
        """Of each mosaic's network, (B, 1, H, W) in [0, 1]; the rest is the general one's."""
        sigma, span = (4 * c_noise.float()).exp(), self.white - self.black
        x = scaled.float() / coefficients(sigma, self.sigma_data)[2]
        seen = (x - self.black) / span, sigma / span, sigma < UNKNOWN
        return {name: expert.weight(*seen) for name, expert in self.mosaics.items()}  # type: ignore[operator]


def _added(answer: Tensor, network: nn.Module, weight: Tensor, scaled: Tensor, c_noise: Tensor) -> Tensor:
    """`answer` and `weight` times what `network` says of the images where that is not 0."""
    counts = weight.amax((1, 2, 3)) > 0
    if not counts.any():
        return answer
    if counts.all():
        return answer + weight * network(scaled, c_noise)
    answer = answer.clone()
    answer[counts] += weight[counts] * network(scaled[counts], c_noise[counts])
    return answer


def experts(
    *, general: Mapping[str, Any], mosaics: Mapping[str, Mapping[str, Any]], black: float, white: float, sigma_data: float = 0.5,
    second: Mapping[str, Mapping[str, Any]] | None = None,
) -> Experts:  # fmt: skip
    """See `Experts`; networks as `{name: ..., options: {...}}`, those of `mosaics`, by the name of the mosaic, with a `fade` besides.

    `second`, by the name of the mosaic: `depth` of its `MosaicNet`, and `gate`, the channels of its gate, and `turns`, see `Second`, up to
    the noise at which the mosaic's own network gives way.
    """
    from lowlight_kedro.diffusion.networks import NETWORKS

    def built(choice: Mapping[str, Any]) -> nn.Module:
        return NETWORKS[choice["name"]](**choice["options"])

    own = {name: Expert(built(choice), name, (choice["fade"][0], choice["fade"][1])) for name, choice in mosaics.items()}
    others = {
        name: Second(
            mosaic_net(mosaic=name, black=black, white=white, depth=choice["depth"], front=()), choice["gate"],
            own[name].fade if name in own else None, choice.get("turns", 1),
        )
        for name, choice in (second or {}).items()
    }  # fmt: skip
    return Experts(built(general), own, Seconds(others, black, white) if others else None, black, white, sigma_data)
