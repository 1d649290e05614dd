"""Guidance for a prior that was trained on noise maps.

The mean is one evaluation at the observation and its own map. Draws begin there as well, and every level is lowered to 0.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, spread_of, standard_normal
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, Posterior
from lowlight_kedro.restoration.measurement import Measurement

BEND = 1.5  # smaller steps first at measured sites: where a posterior has several modes, they part near the observation
LAST = 0.5**0.5  # ratio of the last two levels: the variance is halved, so that D is continued to 0 by its own last change

Levels = Callable[[int], Tensor]


def ladder(top: Tensor, end: Tensor, count: int, index: int, bend: float) -> Tensor:
    """Level `index` of `count` from `top` down to `end` (at most top / 2).

    ln sigma falls as (index / steps)^bend, in equal ratios for bend = 1; the last ratio is at most `LAST`.
    """
    if index == count - 1 > 0:
        return end
    total = end / top
    before_last = total / total.pow(1 / max(count - 1, 1)).clamp(max=LAST)
    return top * before_last.pow((index / max(count - 2, 1)) ** bend)


def lowered_levels(measurement: Measurement, count: int, *, start: float, end: float, sigma_min: float) -> Levels:
    """Maps sigma of `count` evaluations, made when asked for; the first is the observation's own.

    Measured sites go from s to end s, all in the same proportion: what is left is the noise of a better camera, as in
    training. Unmeasured sites are unknown in the first and go from `start` to end s in the others. No level is below
    `sigma_min`, unless half of s is.
    """
    measured, s = measurement.mask > 0, measurement.s
    begin = torch.full_like(s, start)

    def lowest(top: Tensor) -> Tensor:
        return (end * s).clamp(min=sigma_min).minimum(top / 2)

    def levels(index: int) -> Tensor:
        unmeasured = ladder(begin, lowest(begin), count - 1, index - 1, 1.0) if index else torch.full_like(s, SIGMA_UNKNOWN)
        return torch.where(measured, ladder(s, lowest(s), count, index, BEND), unmeasured)

    return levels


def kept(sigma: Tensor, following: Tensor) -> Tensor:
    """a = (following / sigma)^2, the part of x - D that a step keeps; 0 where x is unknown."""
    return torch.where(sigma >= SIGMA_UNKNOWN, 0.0, (following / sigma).square())


def repaid(keep: Tensor, keep_before: Tensor) -> Tensor:
    """k = a (1 - a') / (2 a'), how much of D - D' a step adds; a / 2 after a step that forgot x (a' = 0)."""
    return keep * (1 - keep_before) / 2 / torch.where(keep_before > 0, keep_before, 1.0)


def reverse_sde(denoiser: DenoiserFunction, x: Tensor, levels: Levels, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Second-order steps of the reverse SDE over maps, 1 evaluation each; yields x after each, the last is the draw.

    x <- D + a (x - D) + k (D - D') + sigma_next sqrt(1 - a) eps, per site, with a = (sigma_next / sigma)^2; D' and a' are
    those of the step before. Without k a step is exact but for a variance (1 - a)^2 Var(x0 | x) that it lacks. D - D' is
    a martingale increment: it adds no bias and has the shape of that variance, so k = a (1 - a') / (2 a') pays what the
    step before lacked, to second order. With equal steps k = (1 - a) / 2, SDE-DPM-Solver++(2M) (Lu et al. 2022). The last
    step, to 0, pays for itself too: k = 1, which continues D linearly in sigma^2.

    Args:
        x: (B, 3, H, W), noise of level `levels(0)` and 0 at unknown sites.
        count: evaluations, at least 1; with 1 the result is the posterior mean.
    """
    sigma, before, keep_before = levels(0), None, None
    for index in range(count - 1):
        mean, following = denoiser(x, sigma), levels(index + 1)
        keep = kept(sigma, following)
        x = mean + keep * (x - mean) + following * (1 - keep).sqrt() * standard_normal(mean, generator)
        if before is not None and keep_before is not None:
            x = x + repaid(keep, keep_before) * (mean - before)
        sigma, before, keep_before = following, mean, keep
        yield x
    mean = denoiser(x, sigma)
    yield mean if before is None else 2 * mean - before


def noise_map(
    denoiser: DenoiserFunction, measurement: Measurement, *, sigma_start: float = 2.5, end: float = 0.05, sigma_min: float = 0.01
) -> Posterior:
    """Exact, for a prior trained on noise maps: y and x_t are two independent looks at x0, so weigh them into one.

    z = (y / s^2 + x / sigma^2) / p with precision p = 1 / s^2 + 1 / sigma^2 on measured sites, z = x elsewhere;
    D_y = D(z; p^(-1/2)). With sigma at `SIGMA_UNKNOWN` x counts for nothing: D_y is E[x0 | y]. 1 evaluation.
    Draws come from `reverse_sde`, which starts at y itself.

    Args:
        sigma_start: first level of unmeasured sites in a draw; 5 times the data's standard deviation, 0.5, stands for all.
        end: lowest level of a draw, in units of s.
        sigma_min: the denoiser is not asked for less, except at sites measured better than twice that.
    """

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        unknown = sigma >= SIGMA_UNKNOWN
        x = torch.where(unknown, torch.zeros_like(x), x)
        precision_x = torch.where(unknown, 0.0, sigma.pow(-2)).expand_as(x)
        precision_y = measurement.mask / measurement.s.square()
        precision = precision_y + precision_x
        z = (measurement.y * precision_y + x * precision_x) / precision.clamp(min=1e-12)
        return denoiser(z, precision.clamp(min=SIGMA_UNKNOWN**-2).rsqrt())

    spread = spread_of(denoiser)

    def levels_of_y() -> Tensor:
        s = measurement.s.clamp(max=SIGMA_UNKNOWN)  # one frame and no more: this runs on whole frames
        return s.masked_fill_(measurement.mask == 0, SIGMA_UNKNOWN)

    def mean() -> Tensor:
        return denoiser(measurement.y, levels_of_y())

    def std(mean: Tensor) -> Tensor:
        return spread(measurement.y, levels_of_y(), mean)  # type: ignore[no-any-return]

    def draw(first: Tensor, evaluations: int, generator: torch.Generator) -> Iterator[Tensor]:
        del first  # y is the start
        levels = lowered_levels(measurement, evaluations, start=sigma_start, end=end, sigma_min=sigma_min)
        return reverse_sde(denoiser, measurement.mask * measurement.y, levels, evaluations, generator)

    return Posterior(denoiser=posterior, mean=mean, draw=draw, std=std if spread is not None else None, needs_noise_maps=True)
