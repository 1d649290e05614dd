"""Photon transfer: the noise of a camera from flats and darks.

Janesick 2007, "Photon Transfer"; EMVA standard 1288. Two exposures of the same even light differ by noise alone:
half the variance of their difference, against their mean, is a line of slope `gain` and intercept read_noise**2.
Light fall-off, dust and differing photosites (PRNU) are in both and cancel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.darks import Dark, clipped_at_black, measure_darks
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points, judged
from lowlight_kedro.sensor.calibration.fit import (
    TransferLine,
    by_channel,
    contrasts,
    disagreement,
    estimate_from,
    fit_transfer_line,
    inliers,
    phase_blocks,
    phase_channels,
)
from lowlight_kedro.sensor.cfa import Cfa

MISFIT = 9.0  # chi2 per degree of freedom of a line that is no line
NO_FLATS = "no flats: the gain is unknown"


@dataclass(frozen=True)
class Blocks:
    """Local means and variances, all (N,): of one channel, in one block, at one exposure level."""

    mean: NDArray
    variance: NDArray
    degrees: NDArray
    channel: NDArray
    level: NDArray

    def where(self, chosen: NDArray) -> "Blocks":
        """The chosen ones."""
        return Blocks(self.mean[chosen], self.variance[chosen], self.degrees[chosen], self.channel[chosen], self.level[chosen])


def joined(parts: Sequence[Blocks]) -> Blocks:
    """All blocks of several levels."""
    return Blocks(*(np.concatenate([getattr(part, name) for part in parts]) for name in Blocks.__dataclass_fields__))


def _squares(contrast: NDArray, keep: NDArray) -> tuple[NDArray, NDArray]:
    """Sum of squares about each row's own mean, and degrees of freedom, over the last two axes.

    What a row shares is row noise, not read noise, and an uneven drift of the light from top to bottom.
    """
    keep = keep & inliers(contrast)
    count = keep.sum(axis=-1)
    mean = np.where(keep, contrast, 0).sum(axis=-1) / np.maximum(count, 1)
    squares = np.where(keep, (contrast - mean[..., None]) ** 2, 0).sum(axis=(-1, -2))
    return squares, np.maximum(count - 1, 0).sum(axis=-1)


def measure_blocks(frames: NDArray, noise: NDArray, cfa: Cfa, side: int, level: int) -> Blocks:
    """Means of `frames` (n, H, W) and variances of their `noise` (m, H, W) in blocks of `side` periods, hot photosites left out."""
    mean = phase_blocks(frames.mean(axis=0), cfa, side)
    keep = inliers(mean)
    parts = [_squares(phase_blocks(contrast, cfa, side), keep) for contrast in noise]
    squares, degrees = np.sum([part[0] for part in parts], axis=0), np.sum([part[1] for part in parts], axis=0)
    means, variances, totals, channels = [], [], [], []
    for channel in range(3):
        phases = phase_channels(cfa) == channel
        total = degrees[:, :, phases].sum(axis=2)
        variances.append(squares[:, :, phases].sum(axis=2) / np.maximum(total, 1))
        means.append(np.where(keep, mean, 0)[:, :, phases].sum(axis=(2, 3, 4)) / np.maximum(keep[:, :, phases].sum(axis=(2, 3, 4)), 1))
        totals.append(total)
        channels.append(np.full(total.shape, channel))
    mean_, variance, total_, channel_ = (np.stack(values).ravel() for values in (means, variances, totals, channels))
    blocks = Blocks(mean_, variance, total_, channel_, np.full(mean_.shape, level))
    return blocks.where(blocks.degrees > 1)


def usable(blocks: Blocks, lowest: float, ceiling: float) -> Blocks:
    """Blocks that keep clear of saturation and of a cut at black: noise cut off at either end has a smaller variance.

    A block's noise must end, five standard deviations out, below 1; its mean must be under `ceiling` and, where the
    raws are cut off at black, five standard deviations above `lowest`.
    """
    reach = 5 * np.sqrt(blocks.variance)
    return blocks.where((blocks.mean <= ceiling) & (blocks.mean + reach <= 1) & (blocks.mean - reach >= lowest))


def binned(blocks: Blocks, line: TransferLine | None, per_level: int) -> tuple[Points, NDArray]:
    """Blocks of each level in `per_level` groups by mean: points, and their relative errors.

    The error is that of Gaussian noise, sqrt(2 / degrees of freedom), or the scatter of the group's blocks about
    `line` where that is more, as with long tails.
    """
    means, variances, errors = [], [], []
    for level in np.unique(blocks.level):
        part = blocks.where(blocks.level == level)
        for group in np.array_split(np.argsort(part.mean), min(per_level, len(part.mean))):
            mean, variance, degrees = part.mean[group], part.variance[group], part.degrees[group]
            error = np.sqrt(2 / degrees.sum())
            if line is not None and len(group) >= 8:
                ratio = variance / line.variance(mean)
                spread = degrees * (ratio / np.average(ratio, weights=degrees) - 1)
                error = max(error, np.sqrt((spread**2).sum()) / degrees.sum())
            means.append(np.average(mean, weights=degrees))
            variances.append(np.average(variance, weights=degrees))
            errors.append(error)
    mean, variance, relative = np.array(means), np.array(variances), np.array(errors)
    return Points(mean, variance, relative * variance), relative


def fit_blocks(blocks: Blocks, per_level: int) -> tuple[TransferLine, Points]:
    """The line through binned blocks; a first fit tells how the blocks scatter about it.

    Raises:
        ValueError: too few points.
    """
    points, relative = binned(blocks, None, per_level)
    line = fit_transfer_line(points.mean, points.variance, relative)
    points, relative = binned(blocks, line, per_level)
    return fit_transfer_line(points.mean, points.variance, relative), points


def _channel_lines(blocks: Blocks, per_level: int) -> dict[int, TransferLine]:
    """The line of each channel that has three levels."""
    parts = {channel: blocks.where(blocks.channel == channel) for channel in range(3)}
    return {channel: fit_blocks(part, per_level)[0] for channel, part in parts.items() if len(np.unique(part.mean)) >= 3}


def _with_dark(estimate: NoiseEstimate, dark: Dark | None) -> NoiseEstimate:
    """The estimate with what only darks tell."""
    if dark is None:
        return estimate
    tail, tail_error = dark.tail or (None, None)
    return replace(
        estimate, row_noise=dark.row_noise, row_noise_error=dark.row_noise_error, tail=tail, tail_error=tail_error,
        black_error=dark.black, black_error_error=dark.black_error,
    )  # fmt: skip


def _dark_level(darks: NDArray, cfa: Cfa, side: int, tails: bool) -> tuple[Blocks, Dark]:
    """The darks as one more exposure level, at signal 0."""
    noise = darks - np.median(darks) if len(darks) == 1 else contrasts(darks)
    blocks = measure_blocks(darks, noise, cfa, side, level=0)
    read_noise = float(np.sqrt(np.average(blocks.variance, weights=blocks.degrees)))
    return replace(blocks, mean=np.zeros_like(blocks.mean)), measure_darks(darks, cfa, read_noise, tails)


def _darks_only(blocks: Blocks, dark: Dark) -> NoiseEstimate:
    """Read noise alone, verdict `unusable`."""
    variance = np.average(blocks.variance, weights=blocks.degrees)
    spread = np.sqrt(((blocks.degrees * (blocks.variance / variance - 1)) ** 2).sum()) / blocks.degrees.sum()
    relative = max(np.sqrt(2 / blocks.degrees.sum()), spread)
    read_noise = float(np.sqrt(variance))
    points = Points(np.zeros(1), np.array([variance]), np.array([variance * relative]))
    nothing = float("nan")
    estimate = NoiseEstimate(nothing, nothing, read_noise, read_noise * float(relative) / 2, points=points, reason=NO_FLATS)
    return judged(_with_dark(estimate, dark))


def _flat_level(frames: Sequence[NDArray], cfa: Cfa, side: int, ceiling: float, black: Sequence[float], number: int) -> Blocks:
    """Usable blocks of one exposure level, signals counted from the measured black."""
    if len(frames) < 2:
        raise ValueError(f"each exposure level needs at least 2 frames of the same light, level {number} has {len(frames)}")
    stack = np.stack(frames).astype(np.float64)
    lowest = float(stack.min()) if clipped_at_black(stack) else -np.inf
    blocks = usable(measure_blocks(stack, contrasts(stack), cfa, side, number), lowest, ceiling)
    return replace(blocks, mean=blocks.mean - np.asarray(black)[blocks.channel])


def _fitted(blocks: Blocks, per_level: int, note: str) -> NoiseEstimate:
    """The judged estimate from blocks of all levels; `unusable` where they make no line."""
    try:
        line, points = fit_blocks(blocks, per_level)
    except ValueError as error:
        nothing = float("nan")
        return NoiseEstimate(nothing, nothing, nothing, nothing, verdict="unusable", reason=str(error))
    channels = by_channel(_channel_lines(blocks, per_level))
    estimate = replace(estimate_from(line, points), **channels)  # type: ignore[arg-type]
    problem = disagreement(channels["channel_gain"], channels["channel_gain_error"])
    if line.chi2 > MISFIT:
        problem = f"variance against mean is no line (chi2 {line.chi2:.1f}): a lamp that flickers, or raws that are not linear"
    if problem:
        return judged(replace(estimate, verdict="poor", reason=problem))
    return judged(replace(estimate, reason=estimate.reason or note))


def photon_transfer(
    flats: Iterable[Sequence[NDArray]],
    darks: Sequence[NDArray],
    cfa: Cfa,
    *,
    ceiling: float = 0.9,
    side: int = 12,
    per_level: int = 6,
    tails: bool = True,
) -> NoiseEstimate:
    """Gain, read noise, and with darks row noise, tails and black level error.

    Args:
        flats: per exposure level at least two frames (H, W) of the same evenly lit target, normalised (0 = black,
            1 = white, not clipped at 0); a generator keeps one level in memory.
        darks: frames without light at the same ISO, normalised; none, one, or better several.
        cfa: colour filter pattern of all frames.
        ceiling: mean signal from which blocks are left out.
        side: periods of the pattern along a block; light must be even within some blocks only.
        per_level: points of the fit per exposure level.
        tails: whether to fit the shape of the read noise, the slowest part for small frames.

    Read noise leaves out what rows share and includes the rounding to DN. Without darks it is the line's intercept;
    without flats the gain is unknown and the verdict `unusable`. Assumes that the light changes between the frames of
    a level by a common factor at most, and that the sensor is linear.

    Raises:
        ValueError: a level of one frame, frames of different shapes, neither flats nor darks.
    """
    dark, parts, note = None, [], ""
    if len(darks):
        level, dark = _dark_level(np.stack(darks).astype(np.float64), cfa, side, tails)
        parts, note = [level], "" if len(darks) > 1 else "one dark only: its fixed patterns count as row noise and tails"
        if clipped_at_black(np.stack(darks)):
            dark, parts, note = None, [], "the darks are cut off at black and were left out"
    black = dark.black if dark else (0.0, 0.0, 0.0)
    levels = [_flat_level(frames, cfa, side, ceiling, black, number) for number, frames in enumerate(flats, start=1)]
    if not levels and dark is None:
        raise ValueError("nothing to calibrate from: give flats, or darks that are not cut off at black, or both")
    if not levels and dark is not None:
        return _darks_only(parts[0], dark)
    return _with_dark(_fitted(joined([*parts, *levels]), per_level, note), dark)
