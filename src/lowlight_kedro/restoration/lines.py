"""Offsets of whole rows and columns, slow bands and sensor halves, learned from one frame without knowing how large they are.

What whole lines share of the residual y - D tells an offset b at each frequency, with an error of a known variance, see `profiles`. The
power P of what is seen over that of the error, N, tells how large the offsets are (empirical Bayes): their variance is P - N, and the
posterior mean of one is (1 - N / P) of what is seen, where P is clearly above N, else 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.restoration import loudness
from lowlight_kedro.restoration.measurement import Measurement, at_rows
from lowlight_kedro.restoration.profiles import (
    SLOW,
    SMOOTH,
    Estimates,
    Profiles,
    Response,
    dct,
    estimates,
    estimates_by_colour,
    idct,
    profiles_of,
    response,
    smoothed,
)
from lowlight_kedro.sensor.noise import NoiseModel, photon

SLOWEST = 4  # the first frequencies along a profile, in half periods of the frame, that cannot be told from light
CLEARLY = 2.5  # P over N, by their median, from which on lines of their own are believed: facades reach 2.2
LOUDER = 4.0  # times the variance that the noise model knows: less is no news, and `offsets` takes it off
BANDS, NARROW = 40.0, 1  # P over N, of so many frequencies on either side, from which on slow bands are believed: light is slow too
MEDIAN = 0.455  # of chi-squared with one degree of freedom
MOST = 2.0  # times what offsets and noise explain: where there is more power it is light, and counts as noise
LEAST_SIDE = 64  # photosites; smaller frames have too few frequencies
APART, DARKEST = 7, 0.01  # every so manyth line, and the fraction of the values of a half, that tell whether its light is negative
LIKELY = 0.25  # of what is asked for, from which on the response to what was found is measured before it is believed
LOUDEST, DARK = 1.0, 2.5  # times the noise in the dark: offsets are no larger, and where the median site has more of it they do no harm
SURE = 4.0  # standard errors by which one half of the sensor must differ from the other


@dataclass(frozen=True)
class Lines:
    """Offsets of rows (H,) and columns (W,), in signal units."""

    rows: Tensor
    columns: Tensor

    def shift(self, gains: Tensor, rows: slice) -> Tensor:
        """What they add to y in some rows, (1, 3, h, W), network units."""
        return at_rows(gains, rows) * (self.rows[rows].reshape(1, 1, -1, 1) + self.columns)

    def __bool__(self) -> bool:
        return bool(self.rows.any()) or bool(self.columns.any())


def _apart(seen: NDArray, noise: NDArray, most: float) -> float:
    """Variance of whitened offsets of lines that have nothing to do with each other: the same at all frequencies; 0 if it is not clear.

    It is a median over frequencies, so that fences and facades, which have some of them, do not pass for offsets.
    `most`: what is larger is light.
    """
    fast = slice(len(seen) // SLOW, None)
    if np.median(np.square(seen[fast]) / noise[fast]) < CLEARLY * MEDIAN:
        return 0.0
    variance = float(np.median(np.square(seen[fast]) / MEDIAN - noise[fast]))
    return variance if variance < most else 0.0


def _contradicted(size: float, shape: NDArray, loud: Estimates | None) -> bool:
    """Whether the noise says e times better that there is no step of this size: a step of light is louder."""
    if loud is None:
        return False
    weight = shape / loud[1]
    weight[0] = 0
    variance = 1 / float(weight @ shape)
    told = float(weight @ loud[0]) * variance
    return (told - size) ** 2 - told**2 > 2 * variance


def _halves(seen: NDArray, root: NDArray, noise: NDArray, most: float, asked: float, loud: Estimates | None) -> NDArray:
    """The step between the two halves of the lines, if it is there for sure; generalised least squares over all but the slowest waves.

    Twice: what is left after the first step is noise of the second, so that a slow band does not pass for a step.
    """
    step = np.where(np.arange(len(root)) < len(root) // 2, -0.5, 0.5)
    shape, size = dct(step * root), 0.0
    for _ in range(2):
        weight = shape / np.maximum(noise, smoothed(np.square(seen - size * shape)) if size else 0)
        weight[:SLOWEST] = 0
        information = float(weight @ shape)
        size = float(weight @ seen) / information
    excess = size**2 * information
    believed = excess > asked * SURE**2 and abs(size) < most and not _contradicted(size, shape, loud)
    return step * size * (1 - 1 / excess) if believed else np.zeros(len(root))


def _bands(seen: NDArray, noise: NDArray, shown: NDArray, most: float, asked: float) -> NDArray:
    """Variance of whitened slow bands at each frequency, where it is clear that there are some, and beside; `shown`: P / N of each."""
    from scipy.ndimage import maximum_filter1d  # slow to import

    inside = slice(SLOWEST, len(seen) // SLOW)
    power = smoothed(np.square(seen[inside]), NARROW)
    clear = maximum_filter1d((smoothed(shown, NARROW)[inside] > asked * BANDS).astype(np.uint8), 2 * SMOOTH + 1, mode="constant")
    bands = np.zeros(len(seen))
    bands[inside] = np.where(clear, np.maximum(power - noise[inside], 0), 0)
    return bands if bands.mean() < most else np.zeros(len(seen))


def _profile(profiles: Profiles, response: Response, known: float, before: NDArray, dark: float, asked: float) -> tuple[NDArray, NDArray]:
    """Offsets (L,) of the lines of one direction, and those of the two halves; 0 where the frame shows none that nobody knew of.

    Args:
        known: the variance of lines of their own by the noise model.
        before: offsets (L,) that have been taken off already.
        dark: standard deviation of the noise without light.
        asked: 1, or less for what is not yet to be believed.
    """
    root = profiles.root
    most = float(np.mean(np.square(LOUDEST * dark * root)))
    if not profiles.complete:
        return np.zeros(len(root)), np.zeros(len(root))
    seen, error = estimates(profiles, response)
    told = profiles.by_loudness()
    gone = dct(before * root)
    seen += gone
    known, found = known * float(np.mean(np.square(root))), _apart(seen, error, most)
    found = found if found > LOUDER * known else 0.0
    apart = found or known
    slow, fast = slice(1, len(root) // SLOW), seen * apart / (apart + error) - gone
    fast[: slow.stop] = 0
    doubt = float(np.mean((apart * error / (apart + error))[slow.stop :]))
    sharp = seen - gone, error.copy()
    (sharp[0][slow], sharp[1][slow]), (seen[slow], error[slow]) = estimates_by_colour(profiles, response, fast, doubt)
    seen[slow] += gone[slow]
    step = _halves(seen, root, error + apart, LOUDEST * dark, asked, None if told is None else (told[0] + gone, told[1]))
    rest = seen - dct(step * root)
    shown = np.square(sharp[0] + gone - dct(step * root)) / (sharp[1] + apart)
    bands = _bands(rest, error + apart, shown, most, asked)
    if not (found or step.any() or bands.any()):
        return np.zeros(len(root)), step
    variance = apart + bands
    weight = variance / np.maximum(variance + error, smoothed(np.square(rest)) / MOST)
    return idct(weight * rest) / root, step


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
    found = []
    for profiles in profiles_of(measurement, mean, gains):
        if not profiles.complete:
            found.append(float("nan"))
            continue
        spectrum, left = profiles.whole()
        fast = slice(len(spectrum) // SLOW, None)
        found.append(float(np.median(np.square(spectrum[fast]) / left[fast])) / MEDIAN)
    return found[0], found[1]


def worth_it(signal: NDArray, noise: NoiseModel) -> bool:
    """Whether a mosaic is dark enough for lines to show, so that its median site has little more noise than without light; and not tiny.

    In brighter light offsets below the noise do no harm, and facades, horizons and clouds have lines of their own.
    """
    if min(signal.shape[-2:]) < LEAST_SIDE:
        return False
    middle, none = np.median(signal[..., ::APART, ::APART]), np.zeros(())
    return bool(noise.variance(np.asarray(middle)) < DARK**2 * noise.variance(none))


def estimate(
    measurement: Measurement, mean: Tensor, gains: Tensor, zero: float, again: Callable[[Measurement], Tensor], noise: NoiseModel,
    rows: float = 0.0, before: Lines | None = None, std: Tensor | None = None,
) -> Lines:  # fmt: skip
    """Offsets of rows and columns from `mean`, the posterior mean (1, 3, H, W) given `measurement`.

    Bands slower than two periods in the frame are left alone: no single frame tells them from light. Nothing is found in a direction
    in which a line has no measured site at all, nor what is louder than the noise in the dark. For frames that are `worth_it`.

    Args:
        gains: (1, 3, 1, 1) or (1, 3, H, W), network units per unit of signal; `zero`: the network value of no light.
        again: the posterior mean of a part of the measurement; asked four times.
        noise: of a site, signal units.
        rows: that of row offsets by the noise model.
        before: what is taken off the measurement already, and a part of the result.
        std: of the posterior, as `mean`; None: how loud lines are tells nothing.
    """
    dark = float(np.sqrt(noise.variance(np.zeros(()))))
    height, width = mean.shape[-2:]
    before = before or Lines(mean.new_zeros(height), mean.new_zeros(width))
    light = ((mean[..., ::APART, ::APART] - zero) / gains[..., ::APART, ::APART])[0]
    light = light + before.rows[::APART, None] + before.columns[::APART]
    sums = profiles_of(measurement, mean, gains)
    if std is not None and photon(noise) > 0:
        loud = loudness.of_lines(measurement, mean, std, gains, zero, noise)
        sums = replace(sums[0], loud=loud[0]), replace(sums[1], loud=loud[1])

    def found(response: Response, asked: float) -> Lines:
        each = []
        for profiles, known, gone, lines in zip(sums, (rows**2, 0.0), (before.rows, before.columns), (light, light.mT), strict=True):
            offsets, step = _profile(profiles, response, known, gone.double().cpu().numpy(), dark, asked)
            each.append(torch.from_numpy(offsets + _anchored(step, lines)).to(mean))
        return Lines(*each)

    shown = response(measurement, again, gains)
    likely = found(shown, LIKELY)
    if not likely:
        return likely
    off = before.rows - likely.rows, before.columns - likely.columns
    return found(response(measurement, again, gains, off, shown), 1.0)
