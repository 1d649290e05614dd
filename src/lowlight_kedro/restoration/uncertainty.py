"""Standard deviation of the posterior without sampling: how much its mean follows when one measured value is moved."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.restoration.measurement import Measurement

LARGEST_RATIO = 100.0  # of A to s^2 and the inverse: beyond them what is left of w, or of 1 - w, is all error
PSEUDO_COUNT = 1e-3  # probed values that the frame's mean counts for in every window: all that a window without one shows


@dataclass(frozen=True)
class Comb:
    """A sparse set of values.

    Attributes:
        where: index of the photosites, a regular grid.
        chosen: (1, 3, h, w) bool, one channel at each of them.
    """

    where: Any
    chosen: Tensor


def comb(mask: Tensor, spacing: int, generator: torch.Generator) -> Comb:
    """Every `spacing`-th photosite in both directions, from a first one that is drawn.

    At each, the toss of a coin says whether it is a measured or an unmeasured channel, as far as `mask` (1, 3, H, W) has
    both. A spacing prime to 6 visits every colour of a Bayer and of an X-Trans mosaic.
    """
    top, left = torch.randint(spacing, (2,), generator=generator, device=generator.device).tolist()
    where = (..., slice(top % mask.shape[-2], None, spacing), slice(left % mask.shape[-1], None, spacing))
    measured = mask[where] > 0
    shapes = (measured[:, :1].shape, measured.shape)
    coin, lot = (torch.rand(shape, generator=generator, device=generator.device).to(mask.device) for shape in shapes)
    score = lot + (measured == (coin < 0.5))
    return Comb(where, F.one_hot(score.argmax(1), 3).movedim(-1, 1).bool())


def with_virtual_levels(measurement: Measurement, mean: Tensor, reach: int) -> Measurement:
    """The same with the level that virtual measurements get: s_v^2 = s^2 + t^2, t the local contrast of the mean at one pixel.

    s_v should be about as large as what is not known: far below it w is 1 - a little, and s_v^2 w / (1 - w) all error. Where
    nothing was measured, the neighbours leave a value uncertain by their noise and by how much they vary.
    """
    contrast = box((mean - box(mean, 1)).square(), reach)
    level = (measurement.s.square() + contrast).sqrt()
    return replace(measurement, s=torch.where(measurement.mask > 0, measurement.s, level))


def moved(measurement: Measurement, mean: Tensor, teeth: Comb, step: float, generator: torch.Generator) -> tuple[Measurement, Tensor]:
    """The values of a comb moved by +- `step` of their noise level, the sign drawn; and how far (1, 3, h, w).

    A value that was not measured gets a virtual measurement of level s at its posterior mean, and that is moved: by itself
    it says what is believed anyway, and does not change the mean. `measurement` has s from `with_virtual_levels`.
    """
    here, chosen = teeth.where, teeth.chosen
    sign = torch.randint(2, chosen.shape, generator=generator, device=generator.device).to(mean) * 2 - 1
    shift = step * sign * measurement.s[here]
    told = torch.where(measurement.mask[here] > 0, measurement.y[here], mean[here])
    y, mask = measurement.y.clone(), measurement.mask.clone()
    y[here] = torch.where(chosen, told + shift, y[here])
    mask[here] = torch.where(chosen, 1, mask[here])
    return replace(measurement, y=y, mask=mask), shift


def box(x: Tensor, reach: int) -> Tensor:
    """Mean over (2 reach + 1)^2 windows, 0 outside the frame, twice: a smooth window."""
    side = 2 * reach + 1
    for _ in range(2):
        x = F.avg_pool2d(x, (1, side), stride=1, padding=(0, reach))
        x = F.avg_pool2d(x, (side, 1), stride=1, padding=(reach, 0))
    return x


def spread(total: Tensor, reach: int) -> Tensor:
    """Local mean, per channel, of what was probed; `total` (2, 3, H, W) holds numerator and denominator, 0 where nothing was."""
    every = total.mean((1, 2, 3), keepdim=True)  # where a small frame has no probed value of a channel
    few = PSEUDO_COUNT / (2 * reach + 1) ** 2
    return box(total, reach) + few * (total.mean((2, 3), keepdim=True) + PSEUDO_COUNT * every)


def without_own(total: Tensor, s: Tensor, reach: int) -> Tensor:
    """Variance A (1, 3, H, W) that values have without their own measurement, from sums `total` of s^2 w and 1 - w.

    w is the share of a value's move that its mean follows. A measured value has Var = A s^2 / (A + s^2) and w = Var / s^2
    (Miyasawa 1961: Cov = s^2 dD/dy), a virtual one Var = A and w = A / (A + s^2). So for both s^2 w = A (1 - w), and A is
    the ratio of the local means of the two sides, however s varies. Var > s^2, as between two modes, is told as s^2.
    """
    upper, lower = spread(total, reach)
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
    measured, square = measurement.mask > 0, measurement.s.square()
    total = torch.zeros(2, *mean.shape[1:], dtype=mean.dtype, device=mean.device)
    for _ in range(probes):
        teeth = comb(measurement.mask, spacing, generator)
        other, shift = moved(measurement, mean, teeth, step, generator)
        share = (mean_of(other)[teeth.where] - mean[teeth.where]) / shift
        total[teeth.where] += teeth.chosen * torch.cat([square[teeth.where] * share, 1 - share])
    own, virtual = (without_own(total * kind, measurement.s, reach) for kind in (measured, ~measured))
    return torch.where(measured, own * square / (own + square), virtual).sqrt()
