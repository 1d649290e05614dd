"""What lies above black by how loud it is: light has photon noise, an offset has none.

The noise model says how much light there is where the noise is so loud: Var = K (m - b) + r^2, with m the mean of what was measured and
b an offset. So (photon transfer, Janesick 2007)

    b = m - (Var - r^2) / K,   Var = E[(y - D)^2] + Var(x | y),

D and Var(x | y) the mean and variance of the posterior. Texture that D is in doubt of, and noise that nobody knows of, only add to Var.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.restoration.measurement import Measurement, at_rows, smoothed, strips
from lowlight_kedro.restoration.profiles import BESIDE, TINY, waves
from lowlight_kedro.sensor.noise import NoiseModel, photon

BLOCK, LEAST_SITES = 16, 16  # photosites along a block; those of a channel in a block that tells something
TEXTURED, DOUBTED = 0.05, 0.3  # Var(x | y) over Var from which on a place counts less; relative error of Var(x | y)
SCATTER = 1.3  # errors of b over those by which blocks scatter: D follows some of the noise (72 frames of 192 x 192)
AROUND = 4  # photosites over which Var(x | y) is averaged, where single sites count
OUTLYING, FEWEST = 25.0, 8  # squared residuals count up to 5 standard deviations; sites of a line whose mean can be taken off


def trust(variance: Any, doubt: Any) -> Any:
    """Weight of what a variance tells: by its own error, and less where D is in doubt."""
    return 1 / variance**2 / (1 + (doubt / variance / TEXTURED) ** 2)


@dataclass(frozen=True)
class Blocks:
    """Sums over blocks of photosites, signal units.

    Attributes:
        sites, shown: number of measured sites, and what they show, (2, 3, rows, columns): by the colours of a chessboard whose fields are
            periods of the colour filters.
        left, unknown: (y - D)^2 + Var(x | y), and Var(x | y) alone, (3, rows, columns).
    """

    sites: NDArray
    shown: NDArray
    left: NDArray
    unknown: NDArray


def blocks_of(measurement: Measurement, mean: Tensor, std: Tensor, gains: Tensor, zero: float, period: int) -> Blocks:
    """Those of a frame, without what is left over at its rim.

    Args:
        mean, std: of the posterior given `measurement`, (1, 3, H, W), network units.
        gains, zero: see `lines.estimate`. period: of the colour filters.
    """
    height, width = (length // BLOCK for length in mean.shape[-2:])
    columns = torch.arange(width * BLOCK, device=mean.device)
    sums = []
    for top in range(0, height * BLOCK, BLOCK):
        rows = slice(top, top + BLOCK)
        fields = (measurement.y, measurement.mask, mean, std, gains)
        y, mask, d, s, gain = (at_rows(field, rows)[0, ..., : width * BLOCK] for field in fields)
        field_of = (torch.arange(top, top + BLOCK, device=y.device)[:, None] // period + columns // period) % 2
        unknown, shown = mask * (s / gain).square(), mask * (y - zero) / gain
        left = mask * ((y - d) / gain).square() + unknown
        each = [mask * (field_of == 0), mask * (field_of == 1), shown * (field_of == 0), shown * (field_of == 1), left, unknown]
        sums.append(torch.stack(each).reshape(6, 3, BLOCK, width, BLOCK).sum(dim=(2, 4), dtype=torch.float64).cpu().numpy())
    total = np.stack(sums, axis=2)
    return Blocks(total[:2], total[2:4], total[4], total[5])


def of_blocks(blocks: Blocks, noise: NoiseModel) -> tuple[NDArray, NDArray, NDArray]:
    """b (3,), its standard error, and by how much b would be less if the variance of the model were twice as large.

    Not below 0: more noise than the header's black explains is texture, or noise that the model does not know.
    """
    b, error, doubled = np.zeros(3), np.full(3, np.inf), np.zeros(3)
    gain, dark, sites, shown = photon(noise), float(noise.variance(np.zeros(()))), blocks.sites.sum(axis=0), blocks.shown.sum(axis=0)
    for channel in range(3):
        seen = sites[channel] >= LEAST_SITES
        if seen.sum() < 2:
            continue
        count = sites[channel][seen]
        light, left, unknown = (field[channel][seen] / count for field in (shown, blocks.left, blocks.unknown))
        variance = noise.variance(light)
        weight = count * trust(variance, unknown)
        weight /= weight.sum()
        each = light - (left - dark) / gain
        b[channel] = weight @ each
        scatter = np.sqrt(np.square(weight) @ np.square(each - b[channel]))
        error[channel] = SCATTER * np.hypot(scatter, DOUBTED * (weight @ unknown) / gain)
        doubled[channel] = (weight @ variance) / gain
    return b, error, doubled


def _variance_without(residual: Tensor, total: Tensor, count: Tensor) -> Tensor:
    """Squared residuals of sites, less what their channel shares in a line: `total` of `count` sites."""
    off, free = total / count.clamp(min=1), count / (count - 1).clamp(min=1)
    off, free = (torch.where(count >= FEWEST, one, none).to(residual) for one, none in ((off, 0.0), (free, 1.0)))
    return (residual - off).square() * free


def of_lines(
    measurement: Measurement, mean: Tensor, std: Tensor, gains: Tensor, zero: float, noise: NoiseModel
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Offsets of rows, then of columns, signal units but for a constant, (L, 1 + BESIDE): see `profiles.Profiles.loud`.

    What D leaves of an offset is the same along its line and no noise: the mean of each channel in the line is taken off the residual.

    Args:
        mean, std, gains, zero: see `blocks_of`.
    """
    height, width = mean.shape[-2:]
    doubt = smoothed(std.square(), AROUND)
    along, down = waves(width, mean), waves(height, mean)
    of_rows, of_columns = [], torch.zeros(2, width, 1 + BESIDE, dtype=torch.float64, device=mean.device)
    sums = torch.zeros(2, 3, 1, width, dtype=torch.float64, device=mean.device)  # of residuals and sites of each column
    for rows in strips(height):
        mask = measurement.mask[0, :, rows].to(mean)
        residual = (measurement.y[0, :, rows] - mean[0, :, rows]) / at_rows(gains, rows)[0]
        sums += torch.stack([mask * residual, mask]).sum(dim=2, keepdim=True, dtype=torch.float64)
    for rows in strips(height):
        y, d, s, g = (at_rows(field, rows)[0] for field in (measurement.y, mean, std, gains))
        mask, residual, shown = measurement.mask[0, :, rows].to(mean), (y - d) / g, (y - zero) / g
        variance, unknown = noise.variance((d - zero) / g), (s / g).square()
        weight = mask * trust(variance, doubt[0, :, rows] / g.square())

        of_row = (mask * residual).sum(dim=2, keepdim=True), mask.sum(dim=2, keepdim=True)
        squares = (_variance_without(residual, *line).minimum(OUTLYING * variance) for line in (of_row, sums))
        each = [shown - (square + unknown) / photon(noise) for square in squares]
        rows_, columns = (torch.stack([(weight * one).sum(dim=0), weight.sum(dim=0)]) for one in each)
        of_rows.append(rows_ @ along)
        of_columns += columns.mT @ down[rows]
    found = []
    for score, weights in (part.double().cpu().numpy() for part in (torch.cat(of_rows, dim=1), of_columns)):
        information = np.maximum(weights[:, :1], TINY)
        level = score[:, :1] / information
        found.append(np.concatenate([level, (score - level * weights)[:, 1:] / information], axis=1))
    return found[0], found[1]
