"""What a restoration took away, looked at without a truth: is it the noise that was told, and only that?"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lowlight_kedro.restoration.lines import LEAST_SIDE, axis_power
from lowlight_kedro.restoration.measurement import Measurement, strips

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
        told = []
        if self.columns > STANDS_OUT:
            told.append("columns of the sensor stand out: take dark frames")
        if self.rows > STANDS_OUT:
            told.append("rows of the sensor stand out: take dark frames")
        if self.mean_square > LOUD:
            told.append(f"{self.mean_square:.1f} times the noise that was told was taken away: calibrate it, if it is not detail")
        return "; ".join(told) or "good"


def remains_of(measurement: Measurement, mean: Tensor, gains: Tensor) -> Remains:
    """What `mean`, the posterior mean (1, 3, H, W), leaves of the measurement; `gains` as of `lines.estimate`."""
    total = 0.0
    for rows in strips(mean.shape[-2]):
        part = measurement.part(rows)
        total += float((part.mask * ((part.y - mean[..., rows, :]) / part.s).square()).sum(dtype=torch.float64))
    square = total / max(int(measurement.mask.sum()), 1)
    small = min(mean.shape[-2:]) < LEAST_SIDE
    return Remains(square, *((np.nan, np.nan) if small else axis_power(measurement, mean, gains)))
