"""Noise of a short exposure from one aligned pair of a short and a long exposure of the same scene."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.alignment import PairLimits, check_pair, comparable_sites
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points, judged, unusable
from lowlight_kedro.sensor.calibration.fit import TransferLine, by_channel, disagreement, estimate_from, fit_transfer_line, green_squares
from lowlight_kedro.sensor.calibration.residuals import Residuals, calm, measure_residuals, merging, robust_variance, smooth
from lowlight_kedro.sensor.cfa import Cfa
from lowlight_kedro.sensor.frame import Frame, normalise
from lowlight_kedro.sensor.registration import overlap

MISFIT = 4.0  # chi2 per degree of freedom of a line that is no line
SPAN = 3.0  # least ratio of brightest to darkest bin
SMALLEST = 100  # groups from which a bin's variance is worth having
ROUNDS = 4
SELECTION = 1.2  # a chance excess of noise raises the limit by which places are chosen: true errors over those of counting, simulated
MERGING = 0.3  # see `merging`; beyond it gains came out 10 to 25 % too high in simulated pairs shifted by two photosites
TEXTURE = 0.05  # of the gain: what calm places of simulated frames shifted by two photosites still added, a standard deviation
TAILS = 0.01  # of the read noise: long tails that are cut off with the outliers (lambda -0.044: 1 % too little), a standard deviation
OFF = 0.25  # fraction by which the measured exposure ratio may differ from the stated one
GREEN: Cfa = ((1,),)


def bin_points(residuals: Residuals, chosen: NDArray, line: TransferLine | None, bins: int) -> tuple[Points, NDArray]:
    """Variance against mean of the `chosen` groups (R, C, P) in up to `bins` equally filled bins, and relative errors.

    Bins are wide: residuals are divided by the standard deviation of `line` first where there is one.
    """
    signal, value = residuals.signal[chosen], residuals.value[chosen]
    means, variances, errors = [], [], []
    number = min(bins, len(signal) // SMALLEST)
    for part in np.array_split(np.argsort(signal), number) if number else []:
        model = np.ones(len(part)) if line is None else line.variance(signal[part])
        variance, error = robust_variance((value[part] / np.sqrt(model)[:, None]).ravel())
        means.append(signal[part].mean())
        variances.append(variance * model.mean())
        errors.append(SELECTION * error)
    relative = np.array(errors)
    return Points(np.array(means), np.array(variances), relative * np.array(variances)), relative


def fit_residuals(
    residuals: Residuals, chosen: NDArray, line: TransferLine | None, bins: int, channels: tuple[int, ...]
) -> tuple[TransferLine, Points]:
    """The line through the bins of all `channels`.

    Raises:
        ValueError: too few bins.
    """
    parts = [bin_points(residuals, chosen & (residuals.channel == channel), line, bins) for channel in channels]
    points = Points(*(np.concatenate([getattr(each, name) for each, _ in parts]) for name in ("mean", "variance", "variance_error")))
    return fit_transfer_line(points.mean, points.variance, np.concatenate([relative for _, relative in parts])), points


@dataclass(frozen=True)
class Settled:
    """The smooth places `chosen` (R, C, P), the line through them, and its points; `calm`: only where the long exposure is smooth."""

    line: TransferLine
    points: Points
    chosen: NDArray
    calm: bool = False


def _settle_calm(residuals: Residuals, plain: Settled, bins: int) -> Settled:
    """The same where the long exposure alone is smooth: fewer places, but no texture. The plain one if too few are left."""
    line, points, chosen = plain.line, plain.points, plain.chosen
    try:
        for _ in range(ROUNDS):
            chosen = smooth(residuals, line) & calm(residuals, line)
            line, points = fit_residuals(residuals, chosen, line, bins, (0, 1, 2))
    except ValueError:
        return plain
    return Settled(line, points, chosen, calm=True)


def settle(residuals: Residuals, bins: int) -> Settled:
    """Smooth places and the line through them, found in turns; calm places where the frames do not lie well on each other.

    Raises:
        ValueError: too few smooth places.
    """
    chosen = smooth(residuals, None)
    line, points = fit_residuals(residuals, chosen, None, bins, (0, 1, 2))
    for _ in range(ROUNDS):
        chosen = smooth(residuals, line)
        line, points = fit_residuals(residuals, chosen, line, bins, (0, 1, 2))
    plain = Settled(line, points, chosen)
    return _settle_calm(residuals, plain, bins) if merging(residuals, line) > MERGING else plain


def _channel_lines(residuals: Residuals, found: Settled, bins: int) -> dict[int, TransferLine]:
    """The line of each channel that has enough places."""
    enough = [channel for channel in range(3) if (found.chosen & (residuals.channel == channel)).sum() >= 3 * SMALLEST]
    return {channel: fit_residuals(residuals, found.chosen, found.line, bins, (channel,))[0] for channel in enough}


def _problem(residuals: Residuals, found: Settled, estimate: NoiseEstimate, exposure_ratio: float) -> str:
    """Why the estimate is poor, or an empty string."""
    line, points = found.line, found.points
    span = points.mean.max() / max(points.mean.min(), 1e-300)
    if span < SPAN:
        return f"the light spans a factor of {span:.1f} only, which cannot tell gain from read noise; take a scene of shadows and lights"
    if line.chi2 > MISFIT:
        return f"variance against mean is no line (chi2 {line.chi2:.1f}): misaligned, moving, or raws that are not linear"
    if found.calm:
        return "the frames are not aligned well enough: measured only where the long exposure is smooth"
    if merging(residuals, line) > MERGING:
        return "texture passes into noise without a gap: the frames are not aligned well enough, the gain is too high"
    off = np.nanmax(np.abs(residuals.alpha * exposure_ratio - 1))
    if off > OFF:
        return f"the exposures differ by a ratio {off:.0%} off the stated {exposure_ratio:g}"
    return disagreement(estimate.channel_gain or (), estimate.channel_gain_error or ())


def from_pair(
    short: NDArray,
    long: NDArray,
    exposure_ratio: float,
    cfa: Cfa,
    valid: NDArray | None = None,
    *,
    long_gain_factor: float = 1.0,
    ceiling: float = 0.9,
    bins: int = 16,
) -> NoiseEstimate:
    """Gain and read noise of the short exposure.

    Args:
        short: (H, W) mosaic, normalised by its own black and white, not clipped at 0.
        long: (H, W) mosaic of the same scene, aligned to `short` by whole periods of the pattern, normalised likewise.
        exposure_ratio: long over short as stated; only checked, the ratio used is measured per channel.
        cfa: colour filter pattern of both.
        valid: (H, W), False where something moved or is saturated; None = all valid.
        long_gain_factor: gain of the long exposure over that of the short one, 1 = same ISO, e.g. 1/16 for ISO 100
            beside ISO 1600. The variance of the long one's read noise is taken to change by the same factor
            (ln read_noise rises by 0.5 to 0.6 per ln gain: ELD, Wei et al. 2020, for most cameras).
        ceiling: mean signal from which groups of photosites are left out.
        bins: points per channel.

    Noise is seen in diagonal differences of neighbours of one phase (in X-Trans, of the 2 x 2 squares of green): row
    noise, drifts, level errors and slow changes of light cancel, and noise that neighbours share is not seen. Only places
    count around which the exposures differ by noise alone. Where the frames were shifted against each other, differing
    photosites (PRNU) count as noise: at base ISO in bright light this lifts the gain.

    Raises:
        ValueError: arrays of different shapes, a ratio that is not positive, a frame smaller than one group.
    """
    if short.shape != long.shape or (valid is not None and valid.shape != short.shape):
        shapes = [image.shape for image in (short, long, valid) if image is not None]
        raise ValueError(f"short, long and valid must have one shape, got {shapes}; align and crop them first")
    if not exposure_ratio > 0:
        raise ValueError(f"exposure_ratio must be positive, got {exposure_ratio}")
    usable = np.isfinite(short) & np.isfinite(long) & (True if valid is None else valid)
    if len(cfa) == 6:
        short, long, usable, cfa = *(green_squares(image, cfa) for image in (short, long, usable)), GREEN
    residuals = measure_residuals(short, long, usable, cfa, long_gain_factor, ceiling)
    try:
        found = settle(residuals, bins)
    except ValueError:
        return unusable("too few photosites are valid, not saturated and alike in both exposures; take larger frames of a smoother scene")
    channels = by_channel(_channel_lines(residuals, found, bins))
    estimate = replace(estimate_from(found.line, found.points), **channels)  # type: ignore[arg-type]
    estimate = replace(estimate, read_noise_error=float(np.hypot(estimate.read_noise_error, TAILS * estimate.read_noise)))
    if found.calm:
        estimate = replace(estimate, gain_error=float(np.hypot(estimate.gain_error, TEXTURE * estimate.gain)))
    problem = _problem(residuals, found, estimate, exposure_ratio)
    return judged(replace(estimate, verdict="poor", reason=problem) if problem else estimate)


def pair_estimate(short: Frame, long: Frame, exposure_ratio: float, limits: PairLimits) -> NoiseEstimate:
    """From two exposures of one scene, both in one unit of white (`same_white`): aligned, what moved masked; see `from_pair`.

    Raises:
        ValueError: they do not show one scene in that ratio.
    """
    signal, reference = normalise(short), normalise(long)
    check = check_pair(signal, reference, short.cfa, exposure_ratio, limits)
    if check.verdict != "ok":
        raise ValueError(f"the exposures do not fit: {check.reason}")
    shift = (check.shift_y, check.shift_x)
    valid = comparable_sites(signal, reference, short.cfa, shift, check.measured_ratio)
    here, there = overlap(signal.shape, shift, len(short.cfa))
    return from_pair(signal[here], reference[there], check.measured_ratio, short.cfa, valid[here], long_gain_factor=long.iso / short.iso)
