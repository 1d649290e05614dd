"""Photosites at the clipping level say "at least this much", those at a floor "at most": in closed form for a Gaussian cavity."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.restoration.measurement import Operator
from lowlight_kedro.sensor.cfa import UNFILTERED

SEEN_WITHIN = {0: 0, 2: 1, 6: 2}  # pixels within which each channel has a site, by the period of the mosaic; 0: no filters
LOOSEST = 10.0  # standard deviations of its noise; 3 and 30 show the same twigs
LEAST_PILE, STEEP = 0.005, 2.0  # fraction of all sites that a pile at black holds, and how many times those at the next value
LEAST_ABOVE = 0.02  # sites within one standard deviation above the pile, of those in it
FAR = 1e3  # standard deviations, beyond which the hazard of the Gaussian is its asymptote


def level(noise: Any) -> float:
    """Signal from which on a photosite counts as clipped: half a step below white, as white itself is rounded.

    A model that does not know of clipping has white at 1, as the signal is defined; one that has no white never clips.
    """
    white = getattr(noise, "white", 1.0)
    return math.inf if white is None else float(white - getattr(noise, "step", 0.0) / 2)


def floor_of(signal: NDArray, noise: Any) -> float | None:
    """The lowest value of a mosaic if its sites pile up there: the camera subtracted black and cut off what fell below. None: they do not.

    A pile holds `LEAST_PILE` of all sites and `STEEP` times those at the next value, and noise goes on above it.
    """
    lowest = signal.min()
    piled, reach = signal == lowest, float(np.sqrt(noise.variance(np.zeros(()))))
    fraction, above = float(piled.mean()), signal[(signal > lowest) & (signal <= lowest + reach)]
    if fraction < LEAST_PILE or above.size < LEAST_ABOVE * fraction * signal.size:
        return None
    return float(lowest) if fraction > STEEP * float((signal == above.min()).mean()) else None


def clipped(signal: Tensor, operator: Operator, at_least: float) -> Tensor:
    """Places (K,) of the clipped photosites of `signal` (H, W), or of three values a pixel, in a flattened y (3 H W,)."""
    if operator.cfa == UNFILTERED:
        return torch.nonzero(signal.reshape(-1) >= at_least)[:, 0]
    width = signal.shape[1]
    sites = torch.nonzero(signal.reshape(-1) >= at_least)[:, 0]
    rows = torch.div(sites, width, rounding_mode="floor")
    return operator.channels(rows, sites % width) * signal.numel() + sites


def _hazard(a: Tensor) -> tuple[Tensor, Tensor]:
    """lambda(a) = phi(a) / (1 - Phi(a)) and lambda - a."""
    near = a.clamp(max=FAR)
    value = (-near.square() / 2 - math.log(2 * math.pi) / 2 - torch.special.log_ndtr(-near)).exp()
    beyond = 1 / a.clamp(min=FAR) - 2 / a.clamp(min=FAR) ** 3
    excess = torch.where(a > FAR, beyond, value - near)
    return a + excess, excess


def one_sided(bound: Tensor, s: Tensor, centre: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The Gaussian measurement (y, s) that stands for "x + s n >= bound" where all else says x ~ N(centre, variance).

    With tau^2 = s^2 + variance, a = (bound - centre) / tau and lambda the hazard of the Gaussian,

        y = centre + tau / (lambda - a),   s^2 = tau^2 / (lambda (lambda - a)) - variance,

    which gives the mean and variance of the truncated posterior (expectation propagation, Minka 2001). Where all else
    lies far below the bound it is a measurement of the bound, with s; far above it tells nothing, s = infinity.
    """
    bound, s, centre, variance = (t.double() for t in (bound, s, centre, variance))
    tau = (s.square() + variance).sqrt()
    hazard, excess = _hazard((bound - centre) / tau)
    spread = tau.square() / (hazard * excess).clamp(min=1e-300) - variance
    y = centre + tau / excess
    return y, torch.maximum(spread, s.square()).sqrt()


def stand_in(bound: Tensor, s: Tensor, centre: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """`one_sided`, but never looser than LOOSEST s: what would tell less is a measurement of what is believed anyway.

    A network knows mosaics. Before a blown sky all red and blue sites would tell nothing, and of green ones alone it makes a lattice.
    """
    y, spread = one_sided(bound, s, centre, variance)
    loosest = LOOSEST * s.double()
    return torch.where(spread > loosest, torch.maximum(centre, bound).double(), y), torch.minimum(spread, loosest)


def _dilated(where: Tensor, reach: int) -> Tensor:
    """Whether there is one within `reach` rows and columns; booleans (H, W), shifted, so that it costs bytes and not floats."""
    for axis in (0, 1):
        out = where.clone()
        for step in range(1, min(reach, where.shape[axis] - 1) + 1):
            size = where.shape[axis] - step
            out.narrow(axis, step, size).logical_or_(where.narrow(axis, 0, size))
            out.narrow(axis, 0, size).logical_or_(where.narrow(axis, step, size))
        where = out
    return where


def at_least_level(x: Tensor, places: Tensor, operator: Operator, white: float) -> Tensor:
    """`x` (1, 3, H, W), raised to the clipping level at clipped photosites and where all sites of a channel around are clipped.

    The second part keeps blown areas white: there the other channels of a pixel are known by their clipped neighbours only.
    """
    if not len(places):
        return x
    x = x.clone()
    hit = torch.zeros(x[0].shape, dtype=torch.bool, device=x.device)
    hit.view(-1)[places] = True
    measured = operator.mask(tuple(x.shape[-2:])).to(x.device)
    reach = SEEN_WITHIN[len(operator.cfa)]
    for channel, gain in enumerate(operator.site_gains(x).expand_as(x)[0]):
        blown = _dilated(hit[channel], reach) & ~_dilated(measured[channel].bool() & ~hit[channel], reach)
        blown |= hit[channel]
        x[0, channel][blown] = x[0, channel][blown].clamp(min=gain[blown] * white + operator.zero)
    return x


def replace_clipped(y: Tensor, s: Tensor, places: Tensor, value: Tensor, spread: Tensor) -> None:
    """Write measurements that stand for clipped photosites into y and s (1, 3, H, W), in place."""
    y.view(-1)[places] = value.to(y)
    s.view(-1)[places] = spread.to(s)
