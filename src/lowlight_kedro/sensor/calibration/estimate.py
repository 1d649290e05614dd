"""What a calibration finds: the noise of one camera at one ISO, how sure it is, and whether to use it.

Several estimates become one; the NoiseProfile tag of a DNG is what the maker of a camera says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.frame import Frame

Verdict = Literal["good", "poor", "unusable"]
GOOD, POOR = 0.1, 0.5  # relative standard error of gain up to which a calibration is good, is usable


@dataclass(frozen=True)
class Points:
    """Variance against mean, as fitted and as plotted: all (N,), units of white - black and their squares."""

    mean: NDArray
    variance: NDArray
    variance_error: NDArray


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise in units of white - black of the exposure it was measured on; every `*_error` is one standard error.

    Attributes:
        gain: signal per photo-electron: slope of variance against mean.
        read_noise: standard deviation in the dark, without what all photosites of a row share.
        row_noise: standard deviation of the offset of a row; None where the method cannot see it.
        tail: Tukey lambda shape of the read noise (0.14 = Gaussian, less = longer tails); None likewise.
        black_error: mean dark signal of R, G, B, to be subtracted; None likewise.
        black_error_error: its standard errors.
        channel_gain: gain of R, G, B each for itself, nan where a channel has too little; None likewise.
        channel_gain_error: its standard errors.
        points: what was fitted.
        verdict: `good`, `poor` (use where there is nothing better) or `unusable`, with `reason`.
    """

    gain: float
    gain_error: float
    read_noise: float
    read_noise_error: float
    row_noise: float | None = None
    row_noise_error: float | None = None
    tail: float | None = None
    tail_error: float | None = None
    black_error: tuple[float, float, float] | None = None
    black_error_error: tuple[float, float, float] | None = None
    channel_gain: tuple[float, float, float] | None = None
    channel_gain_error: tuple[float, float, float] | None = None
    points: Points = field(default_factory=lambda: Points(np.empty(0), np.empty(0), np.empty(0)))
    verdict: Verdict = "good"
    reason: str = ""


def unusable(reason: str) -> NoiseEstimate:
    """No numbers, and why."""
    return NoiseEstimate(np.nan, np.nan, np.nan, np.nan, verdict="unusable", reason=reason)


def judged(estimate: NoiseEstimate) -> NoiseEstimate:
    """The estimate with the verdict its own errors allow; a worse verdict that a method gave stays."""
    relative = estimate.gain_error / estimate.gain if estimate.gain > 0 else np.inf
    if not (np.isfinite(relative) and np.isfinite(estimate.read_noise) and estimate.read_noise > 0):
        return replace(estimate, verdict="unusable", reason=estimate.reason or f"gain {estimate.gain:.3g} or read noise is not positive")
    if estimate.verdict == "unusable" or relative > POOR:
        return replace(estimate, verdict="unusable", reason=estimate.reason or f"the gain is known to {relative:.0%} only")
    if estimate.verdict == "poor" or relative > GOOD:
        return replace(estimate, verdict="poor", reason=estimate.reason or f"the gain is known to {relative:.0%} only")
    return replace(estimate, reason=estimate.reason or f"the gain is known to {relative:.1%}")


SCATTER = 3.0  # chi2 per degree of freedom from which the estimates contradict each other


def weighted_mean(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float, float]:
    """Inverse-variance mean, its standard error grown by sqrt(chi2) where chi2 > 1, and chi2 per degree of freedom."""
    value, error = np.asarray(values, float), np.asarray(errors, float)
    weight = 1 / np.maximum(error, 1e-3 * np.abs(value) + 1e-300) ** 2
    mean = (weight * value).sum() / weight.sum()
    chi2 = float((weight * (value - mean) ** 2).sum() / max(len(value) - 1, 1))
    return float(mean), float(np.sqrt(max(1.0, chi2) / weight.sum())), chi2


def _optional(estimates: Sequence[NoiseEstimate], name: str) -> tuple[float | None, float | None]:
    """`weighted_mean` of an attribute over those estimates that have it."""
    known = [(getattr(e, name), getattr(e, f"{name}_error")) for e in estimates if getattr(e, f"{name}_error") is not None]
    return weighted_mean(*zip(*known, strict=True))[:2] if known else (None, None)


Triple = tuple[float, float, float]


def _by_channel(estimates: Sequence[NoiseEstimate], name: str) -> tuple[Triple | None, Triple | None]:
    """`weighted_mean` of an attribute with a value per channel over those estimates that have it; nan where none has the channel."""
    known = [(getattr(e, name), getattr(e, f"{name}_error")) for e in estimates if getattr(e, f"{name}_error") is not None]
    if not known:
        return None, None
    means = []
    for channel in range(3):
        pairs = [(values[channel], errors[channel]) for values, errors in known if np.isfinite(errors[channel])]
        means.append(weighted_mean(*zip(*pairs, strict=True)) if pairs else (np.nan, np.nan, np.nan))
    red, green, blue = means
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def without_grain(estimates: Sequence[NoiseEstimate]) -> list[NoiseEstimate]:
    """Estimates whose gains agree: of those that do not, the highest goes first, for texture and grain only add to noise.

    At least half of them stay.
    """
    kept = sorted(estimates, key=lambda estimate: estimate.gain)
    while len(kept) > (len(estimates) + 1) // 2 and weighted_mean([e.gain for e in kept], [e.gain_error for e in kept])[2] > SCATTER:
        kept.pop()
    return kept


def combine(estimates: Sequence[NoiseEstimate], *, scenes: bool = False) -> NoiseEstimate:
    """The inverse-variance mean of estimates of the same camera, ISO and method.

    With `scenes`, of single images: see `without_grain`.

    Unusable ones are left out where others are there, poor ones where good ones are. Estimates that scatter by more
    than their errors allow give a larger error, and the verdict `poor` from a reduced chi2 of 3.

    Raises:
        ValueError: an empty sequence.
    """
    if not estimates:
        raise ValueError("nothing to combine: give at least one estimate")
    used = next(chosen for v in ("good", "poor", "unusable") if (chosen := [e for e in estimates if e.verdict == v]))
    if scenes and used[0].verdict != "unusable":
        used = without_grain(used)
    if len(used) == 1 or used[0].verdict == "unusable":
        return used[0]
    gain, gain_error, gain_scatter = weighted_mean([e.gain for e in used], [e.gain_error for e in used])
    read, read_error, read_scatter = weighted_mean([e.read_noise for e in used], [e.read_noise_error for e in used])
    row, row_error = _optional(used, "row_noise")
    tail, tail_error = _optional(used, "tail")
    points = Points(*(np.concatenate([getattr(e.points, name) for e in used]) for name in ("mean", "variance", "variance_error")))
    mean = NoiseEstimate(
        gain, gain_error, read, read_error, row, row_error, tail, tail_error,
        *_by_channel(used, "black_error"), *_by_channel(used, "channel_gain"), points, verdict=used[0].verdict,
    )  # fmt: skip
    scatter = max(gain_scatter, read_scatter)
    if scatter > SCATTER:
        mean = replace(mean, verdict="poor", reason=f"{len(used)} estimates scatter more than their errors allow (chi2 {scatter:.1f})")
    return judged(mean)


TRUST = 0.2  # relative standard error given to a profile: nothing in the file says how it was made


def noise_profile(scale_and_offset: Sequence[tuple[float, float]]) -> NoiseEstimate:
    """The estimate of a NoiseProfile tag, verdict `poor`: measured models fit better (SNIC, arXiv 2512.15905).

    Args:
        scale_and_offset: (S, O) per colour plane, one pair for all or one each: sigma(x)**2 = S x + O with x = 0 at the
            black and 1 at the white level (DNG specification 1.4, tag 51041).

    The errors are the spread of the planes, at least 20 %.

    Raises:
        ValueError: not a list of pairs.
    """
    profile = np.asarray(scale_and_offset, float)
    if profile.ndim != 2 or profile.shape[1] != 2 or not len(profile):
        raise ValueError(f"scale_and_offset must be one (S, O) per colour plane, got an array of shape {profile.shape}")
    scale, offset = profile.mean(axis=0)
    scale_error, offset_error = np.maximum(profile.std(axis=0), TRUST * np.abs([scale, 2 * offset]))
    read_noise = float(np.sqrt(max(offset, 0.0)))
    read_error = float(offset_error / (2 * read_noise)) if read_noise else np.inf
    estimate = NoiseEstimate(float(scale), float(scale_error), read_noise, read_error, verdict="poor", reason="maker's own profile")
    if not (scale > 0 and offset > 0 and np.isfinite(scale + offset)):
        return NoiseEstimate(
            float(scale), float(scale_error), read_noise, read_error, verdict="unusable",
            reason=f"maker's own profile has scale {scale:.3g} and offset {offset:.3g}, expected both positive",
        )  # fmt: skip
    return judged(estimate)


def tag_estimate(frame: Frame) -> NoiseEstimate | None:
    """From its NoiseProfile tag, None where it has none; see `noise_profile`."""
    return noise_profile(frame.noise_profile) if frame.noise_profile else None
