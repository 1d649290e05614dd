"""Standard deviation of the posterior without sampling: how much its mean follows when one measured value is moved."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.restoration.measurement import Measurement

LARGEST_SHARE = 0.99  # of a virtual measurement in the mean: above it Var = s^2 w / (1 - w) is only noise
PSEUDO_COUNT = 0.05  # probed values that the frame's mean counts for in every window: all that a window without one shows


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
    coin, lot = (torch.rand(shape, generator=generator, device=generator.device).to(mask) for shape in shapes)
    score = lot + (measured == (coin < 0.5))
    return Comb(where, F.one_hot(score.argmax(1), 3).movedim(-1, 1).bool())


def moved(measurement: Measurement, mean: Tensor, teeth: Comb, step: float, generator: torch.Generator) -> tuple[Measurement, Tensor]:
    """The values of a comb moved by +- `step` of their noise level, the sign drawn; and how far (1, 3, h, w).

    A value that was not measured gets a virtual measurement of level s at its posterior mean, and that is moved: by itself
    it says what is believed anyway, and does not change the mean.
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


def spread(total: Tensor, count: Tensor, reach: int) -> Tensor:
    """Local mean of what was probed, per channel; `total` and `count` (1, 3, H, W) are 0 where nothing was."""
    every = total.sum() / count.sum().clamp(min=1)  # where a small frame has no probed value of a channel
    channel = (total.sum((2, 3), keepdim=True) + PSEUDO_COUNT * every) / (count.sum((2, 3), keepdim=True) + PSEUDO_COUNT)
    few = PSEUDO_COUNT / (2 * reach + 1) ** 2
    return (box(total, reach) + few * channel) / (box(count, reach) + few)


def variance_from_shares(share: Tensor, measured: Tensor, s: Tensor) -> Tensor:
    """Posterior variance from the share w of a value's move that its mean follows.

    Measured: w = Var / s^2 (Miyasawa 1961: Cov = s^2 dD/dy). Virtual: w = Var / (Var + s^2), for it is not yet in Var.
    """
    virtual = share.clamp(0, LARGEST_SHARE)
    return s.square() * torch.where(measured, share.clamp(0, 1), virtual / (1 - virtual))


def response_std(
    mean_of: Callable[[Measurement], Tensor], measurement: Measurement, mean: Tensor, *, probes: int, spacing: int, reach: int,
    step: float, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Standard deviation (1, 3, H, W) of P(x0 | y), network units, by `probes` further calls of `mean_of`.

    In each a comb of values moves by delta_i = +- step s_i, and w_i = (change of the mean at i) / delta_i. What leaks over
    from the other moved values, sum_j C_ij delta_j / s_j^2, has mean 0 by the random signs and is small where `spacing`
    exceeds the range of the posterior's correlations. w is averaged over neighbours of the same channel, measured and
    unmeasured ones apart; the level s keeps its full resolution.

    Args:
        mean_of: measurement -> E[x0 | y]; the answer is as exact as this is.
        mean: mean_of(measurement).
        reach: pixels; the window is a box of 2 reach + 1, twice.
    """
    total, count = torch.zeros_like(mean), torch.zeros_like(mean)
    for _ in range(probes):
        teeth = comb(measurement.mask, spacing, generator)
        other, shift = moved(measurement, mean, teeth, step, generator)
        change = mean_of(other)[teeth.where] - mean[teeth.where]
        total[teeth.where] += torch.where(teeth.chosen, change / shift, 0)
        count[teeth.where] += teeth.chosen
    measured = measurement.mask > 0
    share = torch.where(measured, spread(total * measured, count * measured, reach), spread(total * ~measured, count * ~measured, reach))
    return variance_from_shares(share, measured, measurement.s).sqrt()
