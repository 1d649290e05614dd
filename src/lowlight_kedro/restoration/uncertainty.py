"""Standard deviation of the posterior without sampling: how much its mean follows when one measured value is moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.sums import box_sum_padded
from lowlight_kedro.restoration.measurement import Measurement, strips

LARGEST_RATIO = 100.0  # of A to s^2 and the inverse: beyond them what is left of w, or of 1 - w, is all error
PSEUDO_COUNT = 1e-3  # probed values that the frame's mean counts for in every window: all that a window without one shows


@dataclass(frozen=True)
class Comb:
    """A sparse set of values: on every `spacing`-th row and column from `top` and `left` one channel.

    Attributes:
        chosen: (1, 3, h, w) bool, the channel at each photosite of the comb.
    """

    top: int
    left: int
    spacing: int
    chosen: Tensor

    @property
    def where(self) -> Any:
        """Index of its photosites in a frame."""
        return ..., slice(self.top, None, self.spacing), slice(self.left, None, self.spacing)


@dataclass(frozen=True)
class Probe:
    """What one evaluation showed at a comb: `sums` (2, 2, 3, h, w), s^2 w and 1 - w, of measured and of virtual values; else 0."""

    teeth: Comb
    sums: Tensor

    def add_to(self, total: Tensor, rows: slice) -> None:
        """Its sums at their places in some rows of a frame; total (2, 2, 3, rows, W)."""
        teeth = self.teeth
        skipped = max(0, -(-(rows.start - teeth.top) // teeth.spacing))
        places = total[..., teeth.top + skipped * teeth.spacing - rows.start :: teeth.spacing, teeth.left :: teeth.spacing]
        places += self.sums[..., skipped : skipped + places.shape[-2], :]


def comb(mask: Tensor, spacing: int, generator: torch.Generator) -> Comb:
    """Every `spacing`-th photosite in both directions, from a first one that is drawn.

    At each, the toss of a coin says whether it is a measured or an unmeasured channel, as far as `mask` (1, 3, H, W) has
    both. A spacing prime to 6 visits every colour of a Bayer and of an X-Trans mosaic.
    """
    top, left = torch.randint(spacing, (2,), generator=generator, device=generator.device).tolist()
    top, left = top % mask.shape[-2], left % mask.shape[-1]
    measured = mask[..., top::spacing, left::spacing] > 0
    shapes = (measured[:, :1].shape, measured.shape)
    coin, lot = (torch.rand(shape, generator=generator, device=generator.device).to(mask.device) for shape in shapes)
    score = lot + (measured == (coin < 0.5))
    return Comb(top, left, spacing, F.one_hot(score.argmax(1), 3).movedim(-1, 1).bool())


def with_virtual_levels(measurement: Measurement, mean: Tensor, reach: int) -> Measurement:
    """The same with the level that virtual measurements get: s_v^2 = s^2 + t^2, t the local contrast of the mean at one pixel.

    s_v should be about as large as what is not known: far below it w is 1 - a little, and s_v^2 w / (1 - w) all error. Where
    nothing was measured, the neighbours leave a value uncertain by their noise and by how much they vary.
    """
    s = torch.empty_like(measurement.s)
    for rows in strips(s.shape[-2]):
        around, own = widened(rows, 2 * reach + 2, s.shape[-2])
        part = mean[..., around, :]
        contrast = box((part - box(part, 1)).square(), reach)[..., own, :]
        level = (measurement.s[..., rows, :].square() + contrast).sqrt()
        s[..., rows, :] = torch.where(measurement.mask[..., rows, :] > 0, measurement.s[..., rows, :], level)
    return replace(measurement, s=s)


def moved(measurement: Measurement, mean: Tensor, teeth: Comb, step: float, generator: torch.Generator) -> tuple[Measurement, Tensor]:
    """The values of a comb moved by +- `step` of their noise level, the sign drawn; and how far (1, 3, h, w).

    A value that was not measured gets a virtual measurement of level s at its posterior mean, and that is moved: by itself
    it says what is believed anyway, and does not change the mean. `measurement` has s from `with_virtual_levels`.
    """
    here, chosen = teeth.where, teeth.chosen
    sign = torch.randint(2, chosen.shape, generator=generator, device=generator.device).to(mean) * 2 - 1
    shift = step * sign * measurement.s[here]
    centre = torch.where(measurement.mask[here] > 0, measurement.y[here], mean[here])
    y, mask = measurement.y.clone(), measurement.mask.clone()
    y[here] = torch.where(chosen, centre + shift, y[here])
    mask[here] = torch.where(chosen, 1, mask[here])
    return replace(measurement, y=y, mask=mask), shift


def box(x: Tensor, reach: int) -> Tensor:
    """Mean over (2 reach + 1)^2 windows, 0 outside the frame, twice: a smooth window."""
    for _ in range(2):
        x = box_sum_padded(x, reach) / (2 * reach + 1) ** 2
    return x


def widened(rows: slice, by: int, height: int) -> tuple[slice, slice]:
    """Some rows and `by` more on either side, as far as there are any; and where the former lie among these."""
    top, bottom = max(rows.start - by, 0), min(rows.stop + by, height)
    return slice(top, bottom), slice(rows.start - top, rows.stop - top)


def probed(measurement: Measurement, mean: Tensor, other: Tensor, teeth: Comb, shift: Tensor) -> Probe:
    """From `mean` and, with the values of a comb moved by `shift`, `other`."""
    fraction = (other[teeth.where] - mean[teeth.where]) / shift
    both = torch.cat([measurement.s[teeth.where].square() * fraction, 1 - fraction]) * teeth.chosen
    measured = measurement.mask[teeth.where] > 0
    return Probe(teeth, torch.stack([both * measured, both * ~measured]))


def everywhere(probes: Sequence[Probe], reach: int, pixels: int) -> Tensor:
    """(2, 2, 3, 1, 1): what the frame's mean of each channel counts for in a window of two boxes; where it has none, that of all."""
    total = torch.stack([probe.sums.sum((-1, -2), keepdim=True) for probe in probes]).sum(0) / pixels
    few = PSEUDO_COUNT / (2 * reach + 1) ** 2
    return few * (total + PSEUDO_COUNT * total.mean(2, keepdim=True))


def without_own(local: Tensor, s: Tensor) -> Tensor:
    """Variance A (1, 3, h, w) that values have without their own measurement, from local means (2, 3, h, w) of s^2 w and 1 - w.

    w is the fraction of a value's move that its mean follows. A measured value has Var = A s^2 / (A + s^2) and w = Var / s^2
    (Miyasawa 1961: Cov = s^2 dD/dy), a virtual one Var = A and w = A / (A + s^2). So for both s^2 w = A (1 - w), and A is
    the ratio of the local means of the two sides, however s varies. Var > s^2, as between two modes, is told as s^2.
    """
    upper, lower = local
    ratio = upper / lower.clamp(min=torch.finfo(lower.dtype).tiny)
    return torch.minimum(torch.maximum(ratio[None], s.square() / LARGEST_RATIO), LARGEST_RATIO * s.square())


def response_std(
    mean_of: Callable[[Measurement], Tensor], measurement: Measurement, mean: Tensor, *, probes: int, spacing: int, reach: int,
    step: float, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Standard deviation (1, 3, H, W) of P(x0 | y), network units, by `probes` further calls of `mean_of`.

    In each a comb of values moves by delta_i = +- step s_i, and w_i = (change of the mean at i) / delta_i. What leaks over
    from the other moved values, sum_j C_ij delta_j / s_j^2, has mean 0 by the random signs and is small where `spacing`
    exceeds the range of the posterior's correlations. Averaged over neighbours of the same channel, measured and unmeasured
    ones apart, in the form that `without_own` says.

    Args:
        mean_of: measurement -> E[x0 | y]; the answer is as exact as this is.
        mean: mean_of(measurement).
        reach: pixels; the window is a box of 2 reach + 1, twice.
    """
    measurement = with_virtual_levels(measurement, mean, reach)
    found = []
    for _ in range(probes):
        teeth = comb(measurement.mask, spacing, generator)
        other, shift = moved(measurement, mean, teeth, step, generator)
        found.append(probed(measurement, mean, mean_of(other), teeth, shift))
        del other
    return _spread(measurement, found, reach)


def _spread(measurement: Measurement, probes: Sequence[Probe], reach: int) -> Tensor:
    """Standard deviation (1, 3, H, W) from `probes`, some rows at a time; `measurement` has s from `with_virtual_levels`."""
    std, (height, width) = torch.empty_like(measurement.s), measurement.s.shape[-2:]
    few = everywhere(probes, reach, height * width)
    for rows in strips(height):
        around, own = widened(rows, 2 * reach, height)
        total = std.new_zeros(2, 2, 3, around.stop - around.start, width)
        for probe in probes:
            probe.add_to(total, around)
        part = measurement.part(rows)
        local = (box(total.flatten(0, 2), reach).unflatten(0, (2, 2, 3)))[..., own, :] + few
        own_variance, virtual = (without_own(kind, part.s) for kind in local)
        square = part.s.square()
        variance = torch.where(part.mask > 0, own_variance * square / (own_variance + square), virtual)
        std[..., rows, :] = variance.sqrt()
    return std
