"""What is left of a short exposure when the scaled long one is subtracted: noise, and texture where they do not fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from lowlight_kedro.sensor.calibration.fit import TransferLine, phase_blocks, phase_channels, solve_weighted_line
from lowlight_kedro.sensor.cfa import Cfa

SIDE = 4  # periods of the pattern along a group of photosites
CUT = 4.0  # standard deviations from which a residual is an edge, something that moved or a hot photosite
SPIKE = 10.0  # 6.7 standard deviations of Gaussian noise
BINS = 16  # of light, for the exposure ratio
SMOOTHEST = 0.1  # fraction of the groups that serve the first guess


@dataclass(frozen=True)
class Residuals:
    """Groups of 4 x 4 photosites of one phase, in rows R, columns C and phases P.

    Attributes:
        value: (R, C, P, 4) `diagonals` of short - alpha * long, scaled to the noise of a single exposure at `signal`.
        signal: (R, C, P) of which Var(value) = gain * signal + read_noise**2.
        good: (R, C, P) valid throughout, and below saturation in both.
        channel: (P,).
        alpha: short light per long light of R, G, B, nan where a channel has too little.
        reference: (R, C, P, 4) `diagonals` of the long exposure alone, scaled likewise: its texture and its noise.
        long_signal: (R, C, P) light of which Var(reference) = gain * long_signal + read_noise**2 without texture.
    """

    value: NDArray
    signal: NDArray
    good: NDArray
    channel: NDArray
    alpha: NDArray
    reference: NDArray
    long_signal: NDArray


def diagonals(groups: NDArray) -> NDArray:
    """(a - b - c + d) / 2 of the four cells of 2 x 2 in groups (..., 4, 4): (..., 4), with the variance of one photosite.

    Slow drifts, straight gradients, level errors and row and column offsets cancel.
    """
    a, b, c, d = (groups[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    return ((a - b - c + d) / 2).reshape(*groups.shape[:-2], 4)


def light_ratio(short: NDArray, long: NDArray, bins: list[NDArray]) -> float:
    """Slope of a line through the medians of bins of short light (N,) against long light (N,).

    A line with an offset of its own, so that a wrong black level is not taken for light; medians, so that up to a
    few percent of moved or flickering parts do not count; medians of both, as light is spread unevenly within a bin.
    """
    middle = np.array([np.median(short[chosen]) for chosen in bins])
    error = np.array([np.quantile(np.abs(short[chosen] - m), 0.68) / np.sqrt(len(chosen)) for chosen, m in zip(bins, middle, strict=True)])
    means = np.array([np.median(long[chosen]) for chosen in bins])
    weight = 1 / np.maximum(error, 1e-3 * np.abs(middle)) ** 2
    for _ in range(4):
        (slope, offset), _ = solve_weighted_line(means, middle, weight)
        deviation = np.abs(middle - slope * means - offset) * np.sqrt(weight)
        weight = np.where(deviation <= 5 * max(1.0, 1.4826 * float(np.median(deviation))), weight, 1e-6 * weight)
    return float(slope)


def even(groups: NDArray) -> NDArray[np.bool_]:
    """Which groups (..., 4, 4) hold no hot photosite: none is `SPIKE` times as far from the median as half of them are."""
    flat = groups.reshape(*groups.shape[:-2], -1)
    distance = np.abs(flat - np.median(flat, axis=-1, keepdims=True))
    return distance.max(axis=-1) <= SPIKE * np.median(distance, axis=-1)


def same_light(difference: NDArray, bins: list[NDArray]) -> NDArray[np.bool_]:
    """Which mean `difference` (N,) of both exposures lie within 5 standard deviations of their bin's median.

    What moved shows light of which the long exposure knows nothing, and may show too *little* noise for it. Means are
    orthogonal to `diagonals`.
    """
    kept = np.zeros(difference.shape, bool)
    for part in bins:
        distance = np.abs(difference[part] - np.median(difference[part]))
        kept[part] = distance <= 5 * 1.4826 * np.median(distance)
    return kept


def measure_residuals(short: NDArray, long: NDArray, valid: NDArray, cfa: Cfa, gain_factor: float, ceiling: float) -> Residuals:
    """Residuals of normalised mosaics (H, W), the exposure ratio measured per channel.

    Both exposures are noisy: Var = gain * s * (1 + alpha f) + read_noise**2 * (1 + alpha**2 f) with s the short light and
    f = `gain_factor`, gain of the long over gain of the short exposure. Divided by the last bracket this is the line of
    a single exposure at the signal s (1 + alpha f) / (1 + alpha**2 f).
    """
    groups, reference, good = (phase_blocks(image, cfa, SIDE) for image in (short, long, valid))
    groups, reference = np.where(good, groups, 0), np.where(good, reference, 0)
    inside = (-1, -2)
    light, long_light = groups.mean(axis=inside), reference.mean(axis=inside)
    good = good.all(axis=inside) & (reference.max(axis=inside) < 1) & (groups.max(axis=inside) < 1)
    good &= (long_light <= ceiling) & (light <= ceiling)
    channel, alpha = phase_channels(cfa), np.full(3, np.nan)
    good &= even(groups) & even(reference)
    for index in range(3):
        members = np.nonzero(good & (channel == index))
        bins = [part for part in np.array_split(np.argsort(long_light[members]), BINS) if len(part)]
        if len(bins) == BINS:
            alpha[index] = light_ratio(light[members], long_light[members], bins)
            good[members] = same_light(light[members] - alpha[index] * long_light[members], bins)
    scale = np.nan_to_num(alpha)[channel]
    fraction = 1 + scale**2 * gain_factor
    value = diagonals(groups - scale[:, None, None] * reference) / np.sqrt(fraction)[:, None]
    signal = scale * long_light * (1 + scale * gain_factor) / fraction
    texture = diagonals(reference) / np.sqrt(gain_factor)
    return Residuals(value, signal, good & np.isfinite(alpha)[channel], channel, alpha, texture, long_light)


def roughness(value: NDArray, good: NDArray, variance: NDArray) -> tuple[NDArray, NDArray]:
    """Mean square of `value` (R, C, P, 4) *around* each group over `variance` (R, C, P): 1 = noise alone, and its standard deviation.

    Over 5 x 5 neighbours and all phases, the group itself left out: what is judged and what is then measured have
    independent noise, so that choosing smooth places does not choose groups whose noise happens to be small.
    """
    from scipy.ndimage import uniform_filter  # slow to import

    square = np.where(good, np.minimum((value**2).mean(axis=-1) / np.maximum(variance, 1e-300), CUT**2), 0)
    total, count = (
        25 * uniform_filter(values, (5, 5, 1), mode="constant").sum(axis=2, keepdims=True) - values
        for values in (square, good.astype(float))
    )
    alone = count < 0.5
    return np.where(alone, np.inf, total / np.maximum(count, 1)), np.sqrt(2 / (4 * np.maximum(count, 1)))


def calm(residuals: Residuals, line: TransferLine) -> NDArray[np.bool_]:
    """Groups (R, C, P) around which the long exposure shows its noise alone: no texture that could be laid badly on itself."""
    rough, chance = roughness(residuals.reference, residuals.good, line.variance(residuals.long_signal))
    return rough <= 1 + chance


def smooth(residuals: Residuals, line: TransferLine | None) -> NDArray[np.bool_]:
    """Good groups (R, C, P) around which the two exposures differ by noise alone, up to one standard deviation of chance.

    Edges, texture that does not lie exactly on itself and what moved are left out. Without a `line` as yet: the
    smoothest tenth of each of 32 bins of signal per channel, which is too much texture in some and never too little noise.
    """
    if line is not None:
        rough, chance = roughness(residuals.value, residuals.good, line.variance(residuals.signal))
        return residuals.good & (rough <= 1 + chance)
    rough = roughness(residuals.value, residuals.good, np.maximum(residuals.signal, 1e-2 * residuals.signal.max()))[0].ravel()
    chosen = np.zeros(rough.shape, bool)
    for index in range(3):
        members = np.flatnonzero(residuals.good & (residuals.channel == index))
        for part in np.array_split(members[np.argsort(residuals.signal.ravel()[members])], 32):
            chosen[part[np.argsort(rough[part])[: int(SMOOTHEST * len(part)) + 1]]] = True
    return chosen.reshape(residuals.good.shape)


def merging(residuals: Residuals, line: TransferLine) -> float:
    """Groups just above the limit of `smooth`, one to three standard deviations, over those below: 0.19 for noise alone.

    More says that texture, laid badly on itself, passes into noise without a gap: no limit parts them, and the line is
    too high although it is straight.
    """
    rough, chance = roughness(residuals.value, residuals.good, line.variance(residuals.signal))
    above = ((rough - 1) / chance)[residuals.good]
    return float(((above > 1) & (above <= 3)).sum() / max((above <= 1).sum(), 1))


def robust_variance(values: NDArray) -> tuple[float, float]:
    """Variance about 0 of what lies within `CUT` standard deviations, corrected for the cut, and its relative error."""
    density = np.sqrt(2 / np.pi) * CUT * np.exp(-(CUT**2) / 2)
    fraction = 1 - density / erf(CUT / np.sqrt(2))
    variance = (1.4826 * np.median(np.abs(values))) ** 2
    kept = values
    for _ in range(6):
        inside = values[values**2 <= CUT**2 * variance]
        if not len(inside):
            break
        kept, variance = inside, (inside**2).mean() / fraction
    kurtosis = (kept**4).mean() / max(variance, 1e-300) ** 2
    return float(variance), float(np.sqrt(max(kurtosis - 1, 1.0) / len(kept)))
