"""What a posterior mean leaves of the measurement: how much the mean took over, outliers, and whether it is the noise that was told."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lowlight_kedro.restoration.lines import LEAST_SIDE, axis_power
from lowlight_kedro.restoration.measurement import Measurement, strips

ROUNDS = 8  # of the fixed point; each costs no evaluation
LARGEST, HIGHEST = 9.0, 0.95  # squared residuals count up to 3 standard deviations; D never takes over more than this


def leverage(measurement: Measurement, mean: Tensor) -> float:
    """h = dD/dy of an average photosite: E[(y - D)^2] = (1 - h) s^2 where D is the posterior mean.

    Hot pixels would hide it, so residuals count up to three standard deviations. The posterior variance of a photosite is h s^2,
    and what all others say of it has the variance s^2 h / (1 - h).
    """
    return min(max(1 - _mean_square(measurement, mean, LARGEST), 0.0), HIGHEST)


def _mean_square(measurement: Measurement, mean: Tensor, most: float) -> float:
    """Of (y - D) / s where something was measured, each square at most so large."""
    total, count = 0.0, 0
    for rows in strips(mean.shape[-2]):
        part = measurement.part(rows)
        squares = ((part.y - mean[..., rows, :]) / part.s).square().clamp(max=most)
        total += float((squares * part.mask).sum(dtype=torch.float64))
        count += int(part.mask.sum())  # of the whole mask it would be a frame of 64 bits on the way
    return total / max(count, 1)


def student_factor(measurement: Measurement, mean: Tensor, h: float, nu: float, before: Tensor | None = None) -> Tensor:
    """Factors f (1, 3, H, W) on s^2 for noise with the tails of Student's t, by variational EM photosite by photosite.

    All others say x ~ N(c, r^2) with r^2 = s^2 h / (1 - h). c follows from D, which was computed with s^2 f' (`before`): the residual
    y - c = (y - D) (1 + r^2 / (s^2 f')), because D follows an outlier and its own residual hides it. Then, to convergence,

        f <- (nu + E[(y - x)^2] / s^2) / (nu + 1),   x with mean and variance of its posterior for s^2 f.

    Where noise is as expected f is 1 on average.
    """
    out = torch.empty_like(measurement.s)
    for rows in strips(mean.shape[-2]):
        used = 1.0 if before is None else before[..., rows, :]
        out[..., rows, :] = _factor(measurement.part(rows), mean[..., rows, :], h / (1 - h), nu, used)
    return out


def _factor(measurement: Measurement, mean: Tensor, others: float, nu: float, used: Tensor | float) -> Tensor:
    residual = measurement.mask * (measurement.y - mean) / measurement.s
    squared = residual.square() * used * (1 + others / used) ** 2  # of y - c, in units of s
    factor = torch.ones_like(squared)
    for _ in range(ROUNDS):
        left = factor / (factor + others)
        factor = (nu + squared * left.square() + others * left) / (nu + 1)
    return factor


STANDS_OUT = 4.0  # power of whole lines over that beside it: photographs reach 2.7, offsets of half the noise 6.5 and more
LOUD = 1.5  # mean square of (y - D) / s: noise as told leaves 1 or less


@dataclass(frozen=True)
class Remains:
    """Of (y - D) / s, with y the measurement and D its posterior mean.

    Attributes:
        mean_square: 1 - h where the noise is as told, h = dD/dy; more where it is louder, or where D misses detail.
        rows, columns: power of what whole lines share over the power beside it, 1 expected; nan in frames that are too small.
    """

    mean_square: float
    rows: float
    columns: float

    @property
    def verdict(self) -> str:
        """`good`, or what is likely wrong and what can be done."""
        reasons = []
        if self.columns > STANDS_OUT:
            reasons.append("columns of the sensor stand out: take dark frames")
        if self.rows > STANDS_OUT:
            reasons.append("rows of the sensor stand out: take dark frames")
        if self.mean_square > LOUD:
            reasons.append(f"{self.mean_square:.1f} times the noise that was told was taken away: calibrate it, if it is not detail")
        return "; ".join(reasons) or "good"


def remains_of(measurement: Measurement, mean: Tensor, gains: Tensor) -> Remains:
    """What `mean`, the posterior mean (1, 3, H, W), leaves of the measurement; `gains` as of `lines.estimate`."""
    small = min(mean.shape[-2:]) < LEAST_SIDE
    return Remains(_mean_square(measurement, mean, math.inf), *((np.nan, np.nan) if small else axis_power(measurement, mean, gains)))
