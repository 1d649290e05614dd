"""Several estimates of one camera at one ISO into one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points, judged

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
