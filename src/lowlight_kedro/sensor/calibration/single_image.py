"""Noise of one raw frame, from its smooth places: no chart, no second exposure.

After Foi, Trimeche, Katkovnik, Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE TIP 2008. What differs, and why, is in docs/single_image.md.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points, judged, unusable
from lowlight_kedro.sensor.calibration.level_sets import Patches, choose_smooth, level_sets, patch_statistics, relative, unclipped
from lowlight_kedro.sensor.calibration.line import Curve, Line, find_ceiling, find_floor, fit_clipped, fit_line, root
from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, Cfa, sample
from lowlight_kedro.sensor.frame import Frame, normalise, range_dn

ROUNDS = 12  # selection and fit settle in 3 to 6
LEVELS = 24
FEWEST_PATCHES = 40
FINE_CONTRAST = 0.005
SATURATED = 0.05  # fraction of saturated sites from which a patch is left out
NEAR_CEILING = 0.98  # sites above this fraction of the ceiling count as saturated
STRUCTURE_IN_ENERGY = 0.5  # of the structure that smooth places still show, the part that reaches the noise estimate
TAILS = 0.02  # of the read noise: long tails that smooth places avoid (lambda -0.044: 2 % too little), a standard deviation
CHOICE = 0.01  # of the gain: what is left of choosing places and levels, a standard deviation; both measured on simulated scenes
TEXTURED = 0.1  # relative error from texture from which a verdict is at most poor


@dataclass(frozen=True)
class _Fit:
    """The line, what it was drawn through, and how much texture may still be in it (relative error)."""

    line: Line
    points: Points
    texture: float


def from_image(
    signal: NDArray, cfa: Cfa, *, floor: float | None = None, ceiling: float | None = None, step: float = 0.0,
    fine_contrast: float = FINE_CONTRAST, levels: int = LEVELS,
) -> NoiseEstimate:  # fmt: skip
    """Gain and read noise of one raw frame: Var = gain * s + read_noise^2, clipped at `floor` and `ceiling`.

    Args:
        signal: (H, W) normalised mosaic, 0 = black, 1 = white, not clipped by the caller.
        cfa: its colour filter pattern, Bayer in any phase or X-Trans.
        floor, ceiling: values at which the camera clips; None looks for sites piled up at the extremes.
        step: quantisation step, 1 / (white - black); its variance step^2 / 12 is taken off the read noise.
        fine_contrast: relative standard deviation that pixel response, grain and fine texture may have in smooth places;
            what they could feign goes into the errors.
        levels: sets of equal signal that the line is drawn through, at most.

    Returns:
        Estimate with verdict, at most `poor` where black is clipped. Row noise does not enter
        (differences within a row); column noise does. Gain is nan, never an exception, where the frame cannot tell it.

    Raises:
        ValueError: `signal` is not a finite (H, W) array.
    """
    _check(signal, step, levels)
    low = find_floor(signal) if floor is None else floor
    high = find_ceiling(signal, cfa) if ceiling is None else ceiling
    every = patch_statistics(signal, cfa, ceiling=NEAR_CEILING * high)
    patches = _keep(every, np.all(every.saturated < SATURATED, axis=1))
    if len(patches.mean) < FEWEST_PATCHES:
        return unusable(_why_none(signal.shape, len(every.mean), len(patches.mean)))
    fit = _fit(patches, Curve(0, 0, low, high), levels, fine_contrast)
    return unusable("the smooth places have no noise at all") if fit is None else _estimate(fit, step, np.isfinite(low))


def _check(signal: NDArray, step: float, levels: int) -> None:
    if np.ndim(signal) != 2:
        raise ValueError(f"signal must be one mosaic (H, W), got shape {np.shape(signal)}")
    if not np.isfinite(signal).all():
        raise ValueError(
            f"signal must be finite, got {np.count_nonzero(~np.isfinite(signal))} nan or infinite sites; interpolate them first"
        )
    if step < 0 or levels < 3:
        raise ValueError(f"step must not be negative and levels at least 3, got step={step}, levels={levels}")


def _keep(patches: Patches, chosen: NDArray[np.bool_]) -> Patches:
    return Patches(*(getattr(patches, field.name)[chosen] for field in fields(patches)))


def _why_none(shape: tuple[int, ...], every: int, unclipped: int) -> str:
    if every < FEWEST_PATCHES:
        return f"the frame is too small: {shape[0]} x {shape[1]} sites hold {every} patches, {FEWEST_PATCHES} are needed"
    return f"saturated nearly everywhere: {unclipped} of {every} patches are below white"


def _first_curve(patches: Patches, clips: Curve) -> Curve | None:
    """A rough curve: per signal level the energy of the least structured eighth of the patches."""
    structure, mean = patches.structure.mean(axis=1), patches.mean.mean(axis=1)
    parts = np.array_split(np.argsort(mean, kind="stable"), 12)
    least = [part[np.argsort(structure[part], kind="stable")[: max(part.size // 8, 2)]] for part in parts]
    variance = np.array([patches.energy[part].mean() for part in least])
    if not variance.max() > 0:
        return None
    points = Points(np.array([patches.mean[part].mean() for part in least]), variance, np.maximum(variance, variance.max() / 1000) / 10)
    return _curve(fit_line(points, 0), points, clips)


def _curve(line: Line, points: Points, clips: Curve) -> Curve:
    """The line as a curve that is positive everywhere: what the data leave open becomes small, not negative."""
    smallest = max(float(points.variance.min()), 1e-16)
    return replace(clips, gain=max(line.gain, 1e-9), offset=max(line.offset, smallest / 50))


def _fit(patches: Patches, clips: Curve, levels: int, fine_contrast: float) -> _Fit | None:
    """Choose smooth patches by the current curve, draw the line, until the choice stays."""
    curve, smooth = _first_curve(patches, clips), np.zeros(len(patches.mean), bool)
    if curve is None:
        return None
    for _ in range(ROUNDS):
        energy, structure = relative(patches, curve)
        chosen = choose_smooth(structure)
        points = level_sets(patches, chosen, curve, levels)
        if len(points.mean) < 3 or not points.variance.max() > 0:
            return None
        line = fit_clipped(points, clips) if np.isfinite(clips.floor) else fit_line(unclipped(points, curve), fine_contrast)
        curve, settled, smooth = _curve(line, points, clips), np.array_equal(chosen, smooth), chosen
        if settled:
            break
    return _Fit(line, unclipped(points, curve), _texture(energy[smooth], structure[smooth]))


def _texture(energy: NDArray, structure: NDArray) -> float:
    """Relative error from texture among the chosen patches.

    Without texture, energy and structure are independent and the mean structure is at most that of noise, 1. What the
    more structured half has more energy than the other, beyond chance, and half of what structure exceeds 1, count.
    """
    upper = structure > np.median(structure)
    if upper.all() or not upper.any():
        return 0.0
    excess = float(energy[upper].mean() - energy[~upper].mean())
    chance = float(energy.std()) * 2 / np.sqrt(energy.size)
    return float(np.hypot(max(excess - chance, 0), STRUCTURE_IN_ENERGY * max(structure.mean() - 1, 0)))


def _estimate(fit: _Fit, step: float, clips_black: bool) -> NoiseEstimate:
    line = fit.line
    gain_error = float(np.linalg.norm([line.gain_error, fit.texture * line.gain, CHOICE * line.gain]))
    offset_error = float(np.hypot(line.offset_error, fit.texture * abs(line.offset)))
    read_noise, read_noise_error = root(line.offset - step**2 / 12, offset_error)
    read_noise_error = float(np.hypot(read_noise_error, TAILS * read_noise))
    estimate = NoiseEstimate(line.gain, gain_error, read_noise, read_noise_error, points=fit.points)
    if clips_black:
        estimate = replace(estimate, verdict="poor", reason="the camera clips at black: half of the read noise is not in the frame")
    if fit.texture > TEXTURED:
        estimate = replace(
            estimate,
            verdict="poor",
            reason=f"too little of the frame is smooth: up to {fit.texture:.0%} of the noise may be texture",
        )
    return judged(_span_checked(estimate))


def _span_checked(estimate: NoiseEstimate) -> NoiseEstimate:
    """Says so where the gain is unknown because all smooth places are equally bright."""
    span = float(np.ptp(estimate.points.mean))
    if estimate.gain_error < 0.5 * abs(estimate.gain) or estimate.verdict != "good":
        return estimate
    return replace(
        estimate, verdict="unusable", reason=f"the smooth places span only {span:.2g} of the signal range: too little for a gain"
    )


def image_estimate(frame: Frame) -> NoiseEstimate:
    """From the frame alone; see `from_image`.

    Of three values a pixel one is taken as a Bayer mosaic would: values of one colour are then two pixels apart, where interpolation
    correlates their noise less.
    """
    signal, cfa = normalise(frame), frame.cfa
    if cfa == UNFILTERED:
        signal, cfa = sample(signal, BAYER_RGGB), BAYER_RGGB
    return from_image(signal, cfa, step=1 / range_dn(frame))
