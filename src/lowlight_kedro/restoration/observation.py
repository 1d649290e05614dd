"""A measurement, and what each estimate of the clean light teaches about it: noise level, offsets, clipping, outliers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration import black, lines, loudness, offsets, residuals, saturation
from lowlight_kedro.restoration.lines import Lines
from lowlight_kedro.restoration.measurement import Measurement, Operator, at_rows, noise_levels, observe, steady_mean, strips
from lowlight_kedro.restoration.offsets import NO_OFFSETS, Offsets, Spread
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa
from lowlight_kedro.sensor.noise import NoiseModel, photon

Again = Callable[[Measurement], Tensor]
Std = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exposure:
    """A short exposure ready to be restored.

    Attributes:
        signal: mosaic (H, W), 0 = black, 1 = white of the short exposure; (3, H, W) where `cfa` is UNFILTERED.
        white_balance: gains of R, G, B; the result is balanced.
        exposure_ratio: how much longer the exposure is that the result should look like.
        noise: the noise of the short exposure, in units of `signal`.
        defects: photosites (H, W) that do not tell the light, see `sensor.defects`; None: none is known.
        shading: gains of the photosites, of the shape of `signal`: the light is signal * shading; None: 1.
        added_std: standard deviation (H, W) of what single photosites have beyond `noise`, see `sensor.dark_signal`; None: nothing.
        noise_error: relative standard deviation of the variance that `noise` tells; None: nobody knows it, or the black level is known
            better than the noise can tell it, from dark frames or masked photosites.
    """

    signal: NDArray
    cfa: Cfa
    white_balance: tuple[float, float, float]
    exposure_ratio: float
    noise: NoiseModel
    defects: NDArray | None = None
    shading: NDArray | None = None
    added_std: NDArray | None = None
    noise_error: float | None = None


@dataclass(frozen=True)
class Clipped:
    """At the clipped photosites (K,): an estimate of x0, and what it was computed from."""

    x: Tensor
    y: Tensor
    s: Tensor


@dataclass(frozen=True)
class Learned:
    """What an estimate of x0 taught; None = nothing yet.

    Attributes:
        apart: the offsets that are not in s, because they are estimated, or will be from what is measured here.
        h: leverage. factor: of s^2.
        black: height of the black level above the header's (3,), signal units, where the frame shows one, see `black`.
    """

    apart: Spread = NO_OFFSETS
    h: float = 0.0
    offsets: Offsets | None = None
    lines: Lines | None = None
    black: Tensor | None = None
    clipped: Clipped | None = None
    factor: Tensor | None = None


NOTHING = Learned()


class Observation:
    """An exposure on a device, in a prior's units. Holds the exposure and the places of clipped photosites, no frame of its own.

    `places`: first those that are `blown`, then those at the floor, on the other `side` (1 and -1).
    """

    def __init__(self, exposure: Exposure, scaling: Scaling, device: torch.device, structure: Structure) -> None:
        self.exposure, self.scaling, self.device, self.structure = exposure, scaling, device, structure
        self.shading = None if exposure.shading is None else torch.from_numpy(exposure.shading)
        self.operator = Operator.of(exposure.cfa, exposure.white_balance, exposure.exposure_ratio, scaling, self.shading)
        self.white = saturation.level(exposure.noise)
        dark = lines.worth_it(exposure.signal, exposure.noise)
        self.lines = structure.lines and dark
        self.spread = Spread.of(exposure.noise, structure.rows, structure.black)
        self.places = torch.empty(0, dtype=torch.int64, device=device)
        if structure.saturation:
            telling = exposure.signal if exposure.defects is None else np.where(exposure.defects, 0, exposure.signal)
            self.places = saturation.clipped(torch.from_numpy(telling), self.operator, self.white).to(device)
        self.blown = self.places
        floor = saturation.floor_of(exposure.signal, exposure.noise) if structure.saturation else None
        if floor is not None:
            lowest = exposure.signal <= floor if exposure.defects is None else (exposure.signal <= floor) & ~exposure.defects
            lying = saturation.clipped(torch.from_numpy(lowest.astype(np.float32)), self.operator, 1.0)
            self.places = torch.cat([self.blown, lying.to(device)])
        self.side = torch.ones(len(self.places), device=device)
        self.side[len(self.blown) :] = -1
        unknown = structure.black and not self.spread.black and exposure.noise_error is not None
        self.black = unknown and dark and not self.piled and exposure.cfa != UNFILTERED

    @property
    def gains(self) -> Tensor:
        """Network units per unit of signal, (1, 3, 1, 1), or (1, 3, H, W) where the exposure has shading."""
        return self.operator.site_gains(torch.empty(0, device=self.device))

    @property
    def piled(self) -> bool:
        """Whether sites lie at a floor."""
        return len(self.places) > len(self.blown)

    @property
    def surely_teaches(self) -> bool:
        """Whether there is anything to be learned from an estimate but the noise level; lines and black, which few frames show, aside."""
        return bool(self.spread) or len(self.places) > 0 or self.structure.tails_nu is not None

    @property
    def photons(self) -> Tensor:
        """Light of one photon in each channel (3,), network units, without shading."""
        return torch.tensor(self.operator.gains, device=self.device) * photon(self.exposure.noise)

    @property
    def teaches(self) -> bool:
        """Whether there may be anything but the noise level to be learned from an estimate."""
        return self.lines or self.black or self.surely_teaches

    def observed(self) -> tuple[Tensor, Tensor]:
        """y and mask as they were recorded, new tensors; what defects show was not measured."""
        y, mask = observe(self.exposure.signal, self.operator)
        if self.exposure.defects is not None:
            nothing = torch.from_numpy(self.exposure.defects)
            y[..., nothing], mask[..., nothing] = 0, 0
        return y.to(self.device), mask.to(self.device)

    def first(self, reach: int) -> Tensor:
        """A first estimate of x0 that needs no prior: means of what was measured within `reach` pixels, see `steady_mean`."""
        return steady_mean(*self.observed(), reach, partial(self.noise_level, apart=NO_OFFSETS))

    def project(self, x: Tensor) -> Tensor:
        """`x` with what is known to be clipped at or above the clipping level."""
        return saturation.at_least_level(x, self.blown, self.operator, self.white)

    def noise_level(self, clean: Tensor, apart: Spread) -> Tensor:
        """s where the clean light is `clean`, without the offsets `apart`."""
        exposure = self.exposure
        noise: Any = exposure.noise
        if apart:
            noise = replace(noise, row_noise=0.0 if apart.rows else noise.row_noise, black_error=0.0 if apart.black else noise.black_error)
        gains = self.gains
        s = noise_levels(clean, noise, exposure.exposure_ratio, exposure.white_balance, self.scaling, shading=self.shading)
        if exposure.added_std is not None:
            for rows in strips(s.shape[-2]):
                s[..., rows, :] = torch.hypot(s[..., rows, :], at_rows(gains, rows) * torch.from_numpy(exposure.added_std[rows]).to(s))
        return s

    def measurement(self, clean: Tensor, learned: Learned = NOTHING) -> Measurement:
        """What was measured, with the noise level that belongs to `clean` and all that was learned."""
        y, mask = self.observed()
        s = self.noise_level(clean, learned.apart)
        if learned.offsets is not None:
            taken = offsets.shift(learned.offsets.b, self.gains).to(y)
            for rows in strips(y.shape[-2]):
                y[..., rows, :] -= mask[..., rows, :] * taken[..., rows, :]
        if learned.lines is not None:
            gains = self.gains
            for rows in strips(y.shape[-2]):
                y[..., rows, :] -= mask[..., rows, :] * learned.lines.shift(gains, rows)
        if learned.black is not None:
            taken = learned.black.reshape(1, 3, 1, 1) * self.gains
            for rows in strips(y.shape[-2]):
                y[..., rows, :] -= mask[..., rows, :] * at_rows(taken, rows)
        if learned.clipped is not None:
            self._replace_clipped(y, s, learned.clipped, learned.h)
        if learned.factor is not None:
            for rows in strips(s.shape[-2]):
                s[..., rows, :] *= learned.factor[..., rows, :].sqrt()
        return Measurement(y, mask, s)

    def _replace_clipped(self, y: Tensor, s: Tensor, before: Clipped, h: float) -> None:
        at, level = s.view(-1)[self.places], y.view(-1)[self.places]
        others = at.square() * h / (1 - h)  # variance of what all other photosites say of this one
        centre = before.x + others / before.s.square() * (before.x - before.y)
        value, spread = saturation.stand_in(self.side * level, at, self.side * centre, others)
        saturation.replace_clipped(y, s, self.places, self.side * value, spread)

    def learn(
        self, measurement: Measurement, mean: Tensor, before: Learned = NOTHING, again: Again | None = None, std: Std | None = None
    ) -> Learned:
        """From `mean`, the posterior mean (1, 3, H, W) given `measurement`, which came of what was learned `before`.

        Args:
            again: the posterior mean of a part of a measurement; without it no lines are learned.
            std: the posterior's standard deviation for its mean; without it no black level is learned, and lines by their colours only.
        """
        if not self.teaches:
            return before
        seen, nu = self._unclipped(measurement), self.structure.tails_nu
        h = residuals.leverage(seen, mean)
        factor = None if nu is None else residuals.student_factor(seen, mean, h, nu, before.factor)
        if factor is not None:
            factor.view(-1)[self.places] = 1  # what stands for a clipped photosite is no outlier
        loud = std is not None and (self.lines or self.black) and not self.piled  # what lies at a floor is quiet
        doubt = std(mean) if std is not None and loud else None
        taken = self._lines(seen, mean, before, again, doubt)
        spread = self.spread if taken is None or not bool(taken.rows.any()) else replace(self.spread, rows=0.0)
        found = offsets.estimate(seen, mean, spread, self.gains, before.offsets) if spread else None
        level, lines_come_first = before.black, bool(taken) and not before.lines
        if self.black and doubt is not None and level is None and not lines_come_first:
            level = self._black(seen, mean, doubt)
        return Learned(self.spread, h, found, taken, level, self._clipped(measurement, mean), factor)

    def _black(self, measurement: Measurement, mean: Tensor, std: Tensor) -> Tensor | None:
        blocks = loudness.blocks_of(measurement, mean, std, self.gains, self.operator.zero, len(self.exposure.cfa))
        found = black.estimate(blocks, self.exposure.noise, self.exposure.noise_error or 0.0)
        return None if found is None else torch.from_numpy(found).to(mean)

    def without_black(self, mean: Tensor, learned: Learned, before: Learned) -> Tensor:
        """`mean` less the black level that it has taught."""
        return mean if learned.black is None or before.black is not None else mean - learned.black.reshape(1, 3, 1, 1) * self.gains

    def _lines(self, measurement: Measurement, mean: Tensor, before: Learned, again: Again | None, std: Tensor | None) -> Lines | None:
        """Those found before and what is left of them; rows that are estimated as the noise model knows them stay so."""
        if not self.lines or again is None:
            return before.lines
        noise, zero = self.exposure.noise, self.operator.zero
        found = lines.estimate(measurement, mean, self.gains, zero, again, noise, self.spread.rows, before.lines, std)
        if before.lines is not None and self.spread.rows and not bool(before.lines.rows.any()):
            return replace(found, rows=torch.zeros_like(found.rows))
        return found

    def learn_from_local_mean(self, mean: Tensor) -> Learned:
        """Row offsets only: a local mean is no posterior mean, and takes a black-level error for light."""
        if not self.spread.rows:
            return NOTHING
        spread = replace(self.spread, black=0.0)
        measurement = self._unclipped(self.measurement(mean, Learned(spread)))
        return Learned(spread, offsets=offsets.estimate(measurement, mean, spread, self.gains))

    def _clipped(self, measurement: Measurement, mean: Tensor) -> Clipped | None:
        if not len(self.places):
            return None
        return Clipped(*(t.reshape(-1)[self.places] for t in (mean, measurement.y, measurement.s)))

    def _unclipped(self, measurement: Measurement) -> Measurement:
        """Without the blown photosites, which do not show their offset; without those at the floor all others would seem too bright."""
        if not len(self.blown):
            return measurement
        mask = measurement.mask.clone()
        mask.view(-1)[self.blown] = 0
        return replace(measurement, mask=mask)
