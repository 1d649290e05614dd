"""Points of light that a posterior mean dims, as stars: fitted to what was measured, and what is missing given back.

A prior of photographs has seen few points of light on dark ground, and takes part of each for noise. Where the measurement itself shows
one with certainty, least squares tell its light without a prior, as in the photometry of stars.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.sums import box_max_padded
from lowlight_kedro.restoration.measurement import Measurement

WIDTHS = (1.3, 1.6, 2.0, 2.5, 3.2)  # pixels, full width at half maximum
SOUGHT = (1.4, 2.0, 3.0)  # the same, of the filters that find candidates
SHARPER = 0.5  # times the width: of what is missing most is missing at the centre
STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # pixels from the centre of its pixel to that of a point
REACH, FAR = 4, 8  # pixels from the centre to the end of a point, and of the ground around it
PROMISING = 3.5  # standard deviations of a point at the centre of a pixel; one between pixels shows less there
CERTAIN = 5.0  # standard deviations of the ground's noise: with all widths and places, noise alone passes once in ten million pixels
COUNTED = 4.0  # standard deviations with the point's own photons: two or three of these are no point
SEVERAL, AGREED = 2.5, 0.4  # without the photosite that tells most, because a defect is a single one: the same, and of the height with it
CONTRAST = 3.0  # times the light of the ground: on brighter ground are textures, and these the prior knows
ALONE = 0.35  # of its height: as high may the ground be
SHAPE, COLOUR = 0.5, 0.15  # of its height: standard deviation of what may be missing of all channels, and of one beside the others
STRIP = 128  # rows at a time
AT_ONCE = 2048  # candidates
COLOURS = (0.3, 2.0)  # times the mean of the channels: what the least and the most may have of a point
TINY = 1e-20


def _profile(fwhm: float, centre: float) -> Tensor:
    """A Gaussian of height 1, each pixel the mean of 5 points."""
    places = torch.arange(-REACH, REACH + 1)[:, None] + (torch.arange(5) - 2) / 5 - centre
    return torch.exp(-4 * math.log(2) * (places / fwhm).square()).mean(1)


@lru_cache(maxsize=2)
def _templates(scale: float) -> Tensor:
    """Points of all widths, `scale` times as wide, and all centres, (T, (2 REACH + 1)^2)."""
    return torch.stack([
        torch.outer(_profile(scale * width, row), _profile(scale * width, column)).flatten()
        for width in WIDTHS for row in STEPS for column in STEPS
    ])  # fmt: skip


def _filtered(x: Tensor, profile: Tensor) -> Tensor:
    """x (1, 1, H, W) correlated with the profile along rows and columns."""
    return F.conv2d(F.conv2d(x, profile[None, None, :, None], padding=(REACH, 0)), profile[None, None, None], padding=(0, REACH))


def _opened(x: Tensor) -> Tensor:
    """The ground below all that is smaller than a point's square: a morphological opening of (1, C, H, W)."""
    return box_max_padded(-box_max_padded(-x, REACH), REACH)


def _candidates(y: Tensor, precision: Tensor, mean: Tensor) -> Tensor:
    """Pixels (N, 2), each the best within its square, by matched filters of light that is the same in all channels."""
    weighed = ((y - _opened(mean)) * precision).sum(1, keepdim=True)
    weight, best = precision.sum(1, keepdim=True), torch.full_like(weighed, -torch.inf)
    for width in SOUGHT:
        profile = _profile(width, 0.0).to(weighed)
        best = torch.maximum(best, _filtered(weighed, profile) / _filtered(weight, profile.square()).clamp(min=TINY).sqrt())
    return torch.nonzero((best == box_max_padded(best, REACH)) & (best >= PROMISING))[:, 2:]


def _squares(x: Tensor, centres: Tensor, reach: int, beyond: str = "constant") -> Tensor:
    """Squares (N, C, (2 reach + 1)^2) of (1, C, H, W), continued `beyond` the frame by 0 or as `F.pad` calls it."""
    side = torch.arange(-reach, reach + 1, device=x.device)
    rows, columns = (centres[:, axis, None] + reach + side for axis in (0, 1))
    return F.pad(x, (reach,) * 4, mode=beyond)[0][:, rows[:, :, None], columns[:, None]].transpose(0, 1).flatten(2)


def _solved(basis: Tensor, precision: Tensor, left: Tensor, expected: Tensor) -> Tensor:
    """The posterior mean of sum_k a_k basis_k (N, S) for a_k ~ N(0, expected_k^2) and left = that + noise; basis (N, K, S)."""
    weighed = basis * precision[:, None]
    amounts = torch.linalg.solve(weighed @ basis.transpose(1, 2) + torch.diag_embed(expected**-2), weighed @ left[..., None])
    return (amounts * basis).sum(1)


def _seen(mean: Tensor, centres: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A mean at candidates: squares (N, 3, S), ground and colour of a point (N, 3, 1), and how high its surroundings go (N,)."""
    x, around = (_squares(mean, centres, reach, "replicate") for reach in (REACH, FAR))
    side = torch.arange(-FAR, FAR + 1, device=mean.device).abs()
    around = around[..., (torch.maximum(side[:, None], side) > REACH).flatten()]
    ground = around.median(-1, keepdim=True).values
    templates = _templates(1.0).to(mean)
    bright = ((x - ground) * templates[len(templates) // 2]).sum(-1).clamp(min=TINY)
    colour = (bright / bright.mean(1, keepdim=True)).clamp(*COLOURS)[..., None]
    return x, ground, colour, (around - ground).mean(1).amax(1)


def _best(y: Tensor, precision: Tensor, colour: Tensor) -> Tensor:
    """The template (N,) that explains most of y, a point of this colour on no ground, by least squares."""
    templates = _templates(1.0).to(y)
    along = (colour * ((y * precision) @ templates.T)).sum(1)
    weight = (colour.square() * (precision @ templates.square().T)).sum(1).clamp(min=TINY)
    return (along / weight.sqrt()).argmax(1)


def _measured(y: Tensor, precision: Tensor, point: Tensor, photons: Tensor) -> tuple[Tensor, Tensor]:
    """The height of a point (N, 3, S) in y, and whether the noise, its own photons and a single site leave no doubt of it; (N,) each."""
    parts, weights = (point * precision * y).flatten(1), (point.square() * precision).flatten(1)
    total, known = parts.sum(1), weights.sum(1).clamp(min=TINY)
    height, variance = total / known, 1 / known
    its_own = ((point * precision).square() * photons[:, None] * point).flatten(1).sum(1) * height.clamp(min=0) / known.square()
    most = parts.argmax(1, keepdim=True)
    others = (known - weights.gather(1, most)[:, 0]).clamp(min=TINY)
    without = (total - parts.gather(1, most)[:, 0]) / others
    sure = (height >= CERTAIN * variance.sqrt()) & (height >= COUNTED * (variance + its_own).sqrt())
    return height, sure & (without >= SEVERAL / others.sqrt()) & (without >= AGREED * height)


def _fitted(y: Tensor, precision: Tensor, mean: Tensor, centres: Tensor, photons: Tensor, zero: float) -> tuple[Tensor, Tensor]:
    """Which candidates are points (N,), and what the mean lacks of each (N, 3, 2 REACH + 1, 2 REACH + 1).

    Least squares, weighed by the noise: of each template in the colour that the mean has there, then of what is missing.
    """
    y, precision = (_squares(part, centres, REACH) for part in (y, precision))
    x, ground, colour, surroundings = _seen(mean, centres)
    best = _best(y - ground, precision, colour)
    shape, sharper = (_templates(scale).to(mean)[best][:, None] for scale in (1.0, SHARPER))
    height, sure = _measured(y - ground, precision, colour * shape, photons)
    alone = (height >= CONTRAST * (ground - zero).clamp(min=0).mean((1, 2))) & (surroundings <= ALONE * height)

    basis = torch.cat([torch.stack([colour * shape, colour * sharper], 1), torch.eye(3).to(mean)[..., None] * shape[:, None]], 1)
    expected = torch.tensor([SHAPE, SHAPE, COLOUR, COLOUR, COLOUR]).to(mean) * height[:, None].clamp(min=TINY)
    missing = _solved(basis.flatten(2), precision.flatten(1), (y - x).flatten(1), expected)
    return sure & alone, missing.unflatten(1, (3, 2 * REACH + 1, 2 * REACH + 1))


@dataclass(frozen=True)
class Points:
    """Points of light in a frame, and what is missing of each.

    Attributes:
        centres: their pixels (N, 2). missing: light of the squares around them, (N, 3, 2 REACH + 1, 2 REACH + 1), network units.
    """

    centres: Tensor
    missing: Tensor

    def __len__(self) -> int:
        return len(self.centres)

    def add_to(self, light: NDArray[np.float32], slope: float) -> None:
        """In place: what is missing, times `slope`, to a frame (3, H, W)."""
        height, width = light.shape[-2:]
        for (row, column), square in zip(self.centres.tolist(), (self.missing * slope).cpu().numpy(), strict=True):
            rows, columns = (slice(max(at - REACH, 0), min(at + REACH + 1, end)) for at, end in ((row, height), (column, width)))
            light[:, rows, columns] += square[:, rows.start - row + REACH :, columns.start - column + REACH :][
                :, : rows.stop - rows.start, : columns.stop - columns.start
            ]


@torch.no_grad()
def find(measurement: Measurement, mean: Tensor, photons: Tensor, zero: float) -> Points:
    """Points of light that the measurement shows, and what `mean`, a posterior mean (1, 3, H, W), lacks of them.

    A point stands alone on dark ground, and out of its noise by `CERTAIN` standard deviations and more than a single photosite.

    Args:
        photons: light of one photon in each channel (3,), network units. zero: the network value of no light.
    """
    side, height = 2 * REACH + 1, mean.shape[-2]
    centres, missing = [mean.new_zeros(0, 2, dtype=torch.int64)], [mean.new_zeros(0, 3, side, side)]
    for top in range(0, height, STRIP):
        first = max(top - 2 * FAR, 0)
        rows = slice(first, min(top + STRIP + 2 * FAR, height))
        part, light = measurement.part(rows), mean[..., rows, :]
        precision = part.mask / part.s.square().clamp(min=TINY)
        found = _candidates(part.y, precision, light)
        found = found[(found[:, 0] >= top - first) & (found[:, 0] < top - first + STRIP)]
        for some in found.split(AT_ONCE):
            good, squares = _fitted(part.y, precision, light, some, photons, zero)
            centres.append(some[good] + torch.tensor([first, 0], device=mean.device))
            missing.append(squares[good])
    return Points(torch.cat(centres), torch.cat(missing))
