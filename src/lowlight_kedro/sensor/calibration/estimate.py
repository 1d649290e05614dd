"""What a calibration finds: the noise of one camera at one ISO, how sure it is, and whether to use it."""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
