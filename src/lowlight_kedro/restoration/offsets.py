"""Offsets that photosites share, b ~ N(0, T): one per sensor row (row noise), one per channel (black-level error).

With z = y - G b and D the posterior mean given z, Tweedie's formula makes the score of the posterior of b exact for any prior:

    d ln p(b | y) / db = G^T (z - D(z)) / s^2 - b / T

(the s of single photosites, offsets not in it). Its zero is where the alternation b <- sum (y - D) g / s^2 /
(1 / T + sum g^2 / s^2) ends, but that creeps, because D takes most of an offset for signal: each photosite tells not 1 / s^2
but (1 - h) / s^2, h = dD/dy. The score's own variance knows h: k + k^2 T with k = (1 - h) sum g^2 / s^2 (Fisher information plus
what the offsets add). So the first step divides by 1 / T + k, the next ones are conjugate gradients with that preconditioner.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.restoration.measurement import Measurement, at_rows, strips

SHORTEST_STEP, LONGEST_STEP = 0.25, 4.0  # of the line search: the score is not quite linear, and s is refreshed between


@dataclass(frozen=True)
class Spread:
    """Prior standard deviation of the offsets, in units of the signal; 0 = there is none."""

    rows: float = 0.0
    black: float = 0.0

    @classmethod
    def of(cls, noise: Any, rows: bool, black: bool) -> "Spread":
        """What a noise model knows of them, each if wanted."""
        return cls(getattr(noise, "row_noise", 0.0) if rows else 0.0, getattr(noise, "black_error", 0.0) if black else 0.0)

    def __bool__(self) -> bool:
        return self.rows > 0 or self.black > 0

    def variance(self, like: Tensor) -> Tensor:
        """T (H + 3,) of the offsets of a frame (1, 3, H, W): rows, then channels."""
        return torch.cat([like.new_full((like.shape[-2],), self.rows**2), like.new_full((3,), self.black**2)])


NO_OFFSETS = Spread()


@dataclass(frozen=True)
class Offsets:
    """Estimate `b` (H + 3,), in signal units, and where the search for it stands.

    Attributes:
        base, score, direction: of the last line search. `b` = base + direction.
        curvature: 1 / T + k, the inverse of the posterior variance of b (diagonal).
        descent: score . score / curvature at `base`.
    """

    b: Tensor
    base: Tensor
    score: Tensor
    direction: Tensor
    curvature: Tensor
    descent: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """One draw of the offsets given y: N(b, 1 / curvature)."""
        noise = torch.randn(self.b.shape, generator=generator, device=self.b.device, dtype=self.b.dtype)
        return self.b + noise * self.curvature.rsqrt()


def shift(b: Tensor, gains: Tensor) -> Tensor:
    """G b as (1, 3, H, 1), or (1, 3, H, W) with shading, network units: gains_c (row + channel offset)."""
    return gains * (b[:-3].reshape(1, 1, -1, 1) + b[-3:].reshape(1, 3, 1, 1))


def gather(field: Tensor) -> tuple[Tensor, Tensor]:
    """G^T of a field (1, 3, H, W) times gains: its sums per row (H,) and per channel (3,)."""
    lines = field.sum(dim=-1, dtype=torch.float64)
    return lines.sum(dim=(0, 1)), lines.sum(dim=(0, 2))


def _score(measurement: Measurement, mean: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """G^T (y - D) / s^2 and the diagonal of G^T G / s^2, each (H + 3,)."""
    sums: list[tuple[Tensor, ...]] = []
    for rows in strips(mean.shape[-2]):
        part = measurement.part(rows)
        gain = at_rows(gains, rows)
        weight = part.mask * gain / part.s.square()
        sums.append((*gather(weight * (part.y - mean[..., rows, :])), *gather(weight * gain)))
    score, score_black, gram, gram_black = zip(*sums, strict=True)
    return torch.cat([*score, torch.stack(score_black).sum(0)]), torch.cat([*gram, torch.stack(gram_black).sum(0)])


def _information(score: Tensor, gram: Tensor, variance: Tensor) -> Tensor:
    """k of one family of offsets from its mean squared score: k + k^2 T = E[score^2], in units of `gram`.

    Scores larger than offsets and noise explain (E[score^2] > gram + gram^2 T: texture that D missed) raise k, as a linear
    least-squares estimate would.
    """
    seen = gram > 0
    if not bool(seen.any()) or not bool((variance > 0).any()):
        return gram
    excess = (score[seen].square() / gram[seen]).mean()
    strength = (gram[seen] * variance[seen]).mean()
    free = ((1 + 4 * strength * excess).sqrt() - 1) / (2 * strength)
    return gram * torch.maximum(free.clamp(max=1), (excess - 1) / strength)


def _first(score: Tensor, gram: Tensor, variance: Tensor) -> Offsets:
    rows = _information(score[:-3], gram[:-3], variance[:-3])
    black = _information(score[-3:], gram[-3:], variance[-3:])
    curvature = 1 / variance + torch.cat([rows, black])  # infinite where there is no offset
    direction = score / curvature
    return Offsets(direction, torch.zeros_like(direction), score, direction, curvature, score @ direction)


def _next(before: Offsets, score: Tensor) -> Offsets:
    """A step of preconditioned conjugate gradients; the score at `before.b` tells how long its last step should have been."""
    along = (before.score - score) @ before.direction
    length = (before.score @ before.direction / along).clamp(SHORTEST_STEP, LONGEST_STEP) if along > 0 else torch.ones_like(along)
    base = before.base + length * before.direction
    score = before.score + length * (score - before.score)
    descent = score @ (score / before.curvature)
    direction = score / before.curvature + descent / before.descent.clamp(min=1e-30) * before.direction
    return Offsets(base + direction, base, score, direction, before.curvature, descent)


def estimate(measurement: Measurement, mean: Tensor, spread: Spread, gains: Tensor, before: Offsets | None = None) -> Offsets:
    """Offsets of a frame from `mean`, the posterior mean (1, 3, H, W) given `measurement`, from which `before.b` is taken off.

    `gains` (1, 3, 1, 1) or (1, 3, H, W): network units per unit of signal. What is not in the mask tells nothing.
    """
    variance = spread.variance(measurement.y).double()
    score, gram = _score(measurement, mean, gains)
    if before is None:
        return _first(score * (variance > 0), gram, variance)
    prior = torch.where(variance > 0, before.b / variance, 0.0)
    return _next(before, (score - prior) * (variance > 0))
