"""Offsets of whole rows and columns, slow bands and sensor halves, learned from one frame without knowing how large they are.

What D, the posterior mean, leaves of a measurement, r = y - D, has at each frequency the power R of white noise that it did not take
for light. An offset that a whole row shares lies on the axis of the spectrum, where nothing changes along the row; right beside the
axis there are only noise and light, and R is the same. So the power P on the axis against R beside it tells how large the offsets are,
frequency by frequency (empirical Bayes), with D's own errors on both sides of the comparison.

How much of an offset D leaves in r, its response K, is measured: D once more, on a part of the frame, with random offsets added. With u
the residual's profile whitened to unit noise, u = K b + e, Var e = R, and the prior variance of b estimated as (P - R) / K^2,
the posterior mean of the offset is

    b = (1 - R / P) u / K    where P is clearly above R, else 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.restoration.measurement import Measurement, at_rows, strips

BESIDE = 6  # frequencies beside the axis that tell R
SMOOTH = 3  # frequencies on either side over which powers are averaged
SLOWEST = 4  # the first frequencies along a profile, in half periods of the frame, that cannot be told from light
CLEARLY = 2.5  # P over R, by their median, from which on lines of their own are believed: facades reach 2.2
LOUDER = 4.0  # times the variance that the noise model knows: less is no news, and `offsets` takes it off
BANDS, FAINT = 12.0, 0.2  # slow bands are believed from P = (BANDS + FAINT / K) R on: light is slow too, and an error is divided by K
SLOW = 6  # bands are slower than this fraction of the highest frequency
MEDIAN = 0.455  # of chi-squared with one degree of freedom
MOST = 2.0  # times what offsets and noise explain: where there is more power it is light, and counts as noise
LEAST_SIDE = 64  # photosites; smaller frames have too few frequencies
LEAST_RESPONSE = 0.03  # of an offset that y - D must show: it is divided by
PART, PERIODS = 192, 12  # photosites: side of the part on which the response is measured, and of whole periods of Bayer and X-Trans
TRIED = 0.2  # standard deviation of the offsets that are tried, in units of the noise of a site
APART, DARKEST = 7, 0.01  # every so manyth line, and the fraction of the values of a half, that tell whether its light is negative
LIMITS = ((-7.0, 0.3), (3.0, 4.0))  # of ln f0 and a
TINY = 1e-12
SURE = 4.0  # standard errors by which one half of the sensor must differ from the other


@dataclass(frozen=True)
class Lines:
    """Offsets of rows (H,) and columns (W,), in signal units."""

    rows: Tensor
    columns: Tensor

    def shift(self, gains: Tensor, rows: slice) -> Tensor:
        """What they add to y in some rows, (1, 3, h, W), network units."""
        return at_rows(gains, rows) * (self.rows[rows].reshape(1, 1, -1, 1) + self.columns)

    def __add__(self, other: "Lines") -> "Lines":
        return Lines(self.rows + other.rows, self.columns + other.columns)


@dataclass(frozen=True)
class Response:
    """K(f) = 1 / (1 + (f0 / f)^a), f in units of the highest frequency: noise over noise and light that falls as a power of f."""

    f0: float
    a: float

    def __call__(self, frequency: NDArray) -> NDArray:
        """K at frequencies in [0, 1], never so small that an error divided by it would be no offset any more."""
        return np.maximum(1 / (1 + (self.f0 / np.maximum(frequency, TINY)) ** self.a), LEAST_RESPONSE)


def _waves(length: int, like: Tensor) -> Tensor:
    """(length, 1 + BESIDE): no wave, then the slowest ones, of mean square 1."""
    place = (torch.arange(length, device=like.device, dtype=torch.float64) + 0.5) / length
    waves = 2**0.5 * torch.cos(torch.pi * place[:, None] * torch.arange(1 + BESIDE, device=like.device))
    waves[:, 0] = 1
    return waves.to(like)


def _profiles(measurement: Measurement, mean: Tensor, gains: Tensor) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """For rows, then columns: scores (L, 1 + BESIDE) by the waves along each line, and their information (L, 1 + BESIDE)."""
    height, width = mean.shape[-2:]
    along, down = _waves(width, mean), _waves(height, mean)
    of_rows, of_columns = [], [torch.zeros(width, 1 + BESIDE, dtype=torch.float64, device=mean.device) for _ in range(2)]
    for rows in strips(height):
        part = measurement.part(rows)
        gain = at_rows(gains, rows)
        weight = part.mask * gain / part.s.square()
        score, gram = (weight * (part.y - mean[..., rows, :])).sum(dim=(0, 1)), (weight * gain).sum(dim=(0, 1))
        of_rows.append((score @ along, gram @ along.square()))
        of_columns[0] += score.T @ down[rows]
        of_columns[1] += gram.T @ down[rows].square()
    pairs = ([torch.cat(part) for part in zip(*of_rows, strict=True)], of_columns)
    return tuple(tuple(part.double().cpu().numpy() for part in pair) for pair in pairs)  # type: ignore[return-value]


def _smoothed(power: NDArray) -> NDArray:
    """Running mean over frequencies, edges repeated."""
    window = np.ones(2 * SMOOTH + 1) / (2 * SMOOTH + 1)
    return np.convolve(np.pad(power, SMOOTH, mode="edge"), window, mode="valid")


def _middle(length: int, side: int) -> slice:
    """The middle of a frame, from the beginning of a colour filter's period."""
    first = (length - side) // 2 // PERIODS * PERIODS
    return slice(first, first + side)


def response(measurement: Measurement, again: Callable[[Measurement], Tensor], gains: Tensor) -> Response:
    """The fraction of an offset that y - D shows, on a square part of the frame.

    Rows and columns are tried at once, by random offsets that the sums along lines tell apart, and averaged: D knows no direction.
    """
    from scipy.fft import dct  # slow to import

    side = min(PART, *measurement.y.shape[-2:]) // PERIODS * PERIODS
    rows, columns = (_middle(length, side) for length in measurement.y.shape[-2:])
    gains = gains if gains.shape[-2] == 1 else gains[..., rows, columns]
    part = Measurement(*(field[..., rows, columns] for field in (measurement.y, measurement.mask, measurement.s)))
    size = TRIED * float((part.s / gains).median())
    generator = torch.Generator().manual_seed(0)
    tried = [(size * torch.randn(side, generator=generator)).to(part.y) for _ in range(2)]
    added = part.mask * Lines(*tried).shift(gains, slice(None))
    left = added - (again(replace(part, y=part.y + added)) - again(part))
    known, shown = [], []
    for offsets, (scores, gram) in zip(tried, _profiles(replace(part, y=left), torch.zeros_like(left), gains), strict=True):
        root = np.sqrt(np.maximum(gram[:, 0], TINY))
        known.append(dct(offsets.double().cpu().numpy() * root, norm="ortho")[1:])
        shown.append(dct(scores[:, 0] / root, norm="ortho")[1:])
    return _fitted(np.concatenate(known), np.concatenate(shown), np.tile(np.arange(1, side) / side, 2))


def _fitted(known: NDArray, shown: NDArray, frequency: NDArray) -> Response:
    """Least squares of shown = K known."""
    from scipy.optimize import least_squares  # slow to import

    fit = least_squares(lambda x: Response(np.exp(x[0]), x[1])(frequency) * known - shown, (np.log(0.3), 1.0), bounds=LIMITS)
    return Response(float(np.exp(fit.x[0])), float(fit.x[1]))


def _apart(spectrum: NDArray, left: NDArray, fraction: NDArray) -> float:
    """Variance of whitened offsets of lines that have nothing to do with each other: the same at all frequencies; 0 if it is not clear.

    It is a median over frequencies, so that fences and facades, which have some of them, do not pass for offsets.
    """
    fast = slice(len(spectrum) // SLOW, None)
    if np.median(np.square(spectrum[fast]) / left[fast]) < CLEARLY * MEDIAN:
        return 0.0
    return float(np.median((np.square(spectrum[fast]) / MEDIAN - left[fast]) / fraction[fast] ** 2))


def _halves(spectrum: NDArray, root: NDArray, noise: NDArray, fraction: NDArray) -> NDArray:
    """The step between the two halves of the lines, if it is there for sure; generalised least squares over all but the slowest waves.

    Twice: what is left after the first step is noise of the second, so that a slow band does not pass for a step.
    """
    from scipy.fft import dct  # slow to import

    step = np.where(np.arange(len(root)) < len(root) // 2, -0.5, 0.5)
    shape, size = fraction * dct(step * root, norm="ortho"), 0.0
    for _ in range(2):
        weight = shape / np.maximum(noise, _smoothed(np.square(spectrum - size * shape)) if size else 0)
        weight[:SLOWEST] = 0
        information = float(weight @ shape)
        size = float(weight @ spectrum) / information
    excess = size**2 * information
    return step * size * (1 - 1 / excess) if excess > SURE**2 else np.zeros(len(root))


def _bands(spectrum: NDArray, noise: NDArray, fraction: NDArray) -> NDArray:
    """Variance of whitened slow bands at each frequency, where it is clear that there are some."""
    power = _smoothed(np.square(spectrum))
    bands = np.where(power > (BANDS + FAINT / fraction) * noise, (power - noise) / fraction**2, 0.0)
    bands[:SLOWEST], bands[len(bands) // SLOW :] = 0, 0
    return bands


def _profile(scores: NDArray, gram: NDArray, response: Response, known: float) -> tuple[NDArray, NDArray]:
    """Offsets (L,) of the lines of one direction, and those of the two halves; 0 where the frame shows none that nobody knew of.

    `known`: the variance of lines of their own by the noise model.
    """
    from scipy.fft import dct, idct  # slow to import

    if not (gram > 0).all():
        return np.zeros(len(gram)), np.zeros(len(gram))
    root, spectrum = np.sqrt(gram[:, 0]), dct(scores / np.sqrt(gram), axis=0, norm="ortho")
    left = np.maximum(_smoothed(np.square(spectrum[:, 1:]).mean(axis=1)), TINY)  # R
    fraction = response(np.arange(len(root)) / len(root))  # K
    known, found = known * float(np.mean(gram[:, 0])), _apart(spectrum[:, 0], left, fraction)
    found = found if found > LOUDER * known else 0.0
    apart = found or known
    noise = left + fraction**2 * apart
    step = _halves(spectrum[:, 0], root, noise, fraction)
    rest = spectrum[:, 0] - fraction * dct(step * root, norm="ortho")
    bands = _bands(rest, noise, fraction)
    if not (found or step.any() or bands.any()):
        return np.zeros(len(root)), step
    variance = apart + bands
    weight = fraction * variance / np.maximum(fraction**2 * variance + left, _smoothed(np.square(rest)) / MOST)
    return idct(weight * rest, norm="ortho") / root, step


def _anchored(step: NDArray, light: Tensor) -> NDArray:
    """The same step, one half of which has no offset: the lower one, unless that leaves negative light in it.

    A frame tells the difference between its halves and not their mean. `light` (3, n, m): of every so manyth line, signal units.
    """
    lower = step < 0
    if not lower.any():
        return step
    darkest = np.quantile(light.cpu().double().numpy()[:, lower[::APART]], DARKEST)
    return step - step.min() if darkest > step.min() else step - step.max()


def axis_power(measurement: Measurement, mean: Tensor, gains: Tensor) -> tuple[float, float]:
    """For rows, then columns: P over R, by the median over all but the slow frequencies; 1 where lines share nothing. Nan: not measured."""
    from scipy.fft import dct  # slow to import

    found = []
    for scores, gram in _profiles(measurement, mean, gains):
        if not (gram > 0).all():
            found.append(float("nan"))
            continue
        spectrum = dct(scores / np.sqrt(gram), axis=0, norm="ortho")
        left, fast = np.maximum(_smoothed(np.square(spectrum[:, 1:]).mean(axis=1)), TINY), slice(len(spectrum) // SLOW, None)
        found.append(float(np.median(np.square(spectrum[fast, 0]) / left[fast])) / MEDIAN)
    return found[0], found[1]


def estimate(
    measurement: Measurement, mean: Tensor, gains: Tensor, zero: float, again: Callable[[Measurement], Tensor], rows: float = 0.0
) -> Lines:  # fmt: skip
    """Offsets of rows and columns from `mean`, the posterior mean (1, 3, H, W) given `measurement`.

    Bands slower than two periods in the frame are left alone: no single frame tells them from light. Nothing is found in frames
    under LEAST_SIDE, nor in a direction in which a line has no measured site at all.

    Args:
        gains: (1, 3, 1, 1) or (1, 3, H, W), network units per unit of signal; `zero`: the network value of no light.
        again: the posterior mean of a part of the measurement; asked twice.
        rows: standard deviation of row offsets by the noise model, signal units.
    """
    height, width = mean.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        return Lines(mean.new_zeros(height), mean.new_zeros(width))
    found, known = response(measurement, again, gains), (rows**2, 0.0)
    light = ((mean[..., ::APART, ::APART] - zero) / gains[..., ::APART, ::APART])[0]
    profiles = []
    for sums, variance, lines in zip(_profiles(measurement, mean, gains), known, (light, light.mT), strict=True):
        offsets, step = _profile(*sums, found, variance)
        profiles.append(torch.from_numpy(offsets + _anchored(step, lines)).to(mean))
    return Lines(*profiles)
