"""Blocks of photosites that all see the same colour at the same place of the pattern, and the straight line of variance against mean that
they give: Var = gain * signal + read_noise**2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points
from lowlight_kedro.sensor.cfa import Cfa


def phase_blocks(image: NDArray, cfa: Cfa, side: int) -> NDArray:
    """Blocks (rows, columns, phases, side, side) of an `image` (H, W): `side` periods each way, cut per place in the period.

    What does not fill a block at the bottom and at the right is left out.

    Raises:
        ValueError: the image holds no whole block.
    """
    period = len(cfa)
    block = side * period
    rows, columns = image.shape[0] // block, image.shape[1] // block
    if not rows or not columns:
        raise ValueError(f"a frame must hold at least one block of {block} x {block} photosites, got {image.shape[0]} x {image.shape[1]}")
    cut = image[: rows * block, : columns * block].reshape(rows, side, period, columns, side, period)
    return cut.transpose(0, 3, 2, 5, 1, 4).reshape(rows, columns, period**2, side, side)


def phase_channels(cfa: Cfa) -> NDArray[np.int_]:
    """The channel (0 R, 1 G, 2 B) of each phase of `phase_blocks`."""
    return np.asarray(cfa).ravel()


def contrasts(frames: NDArray) -> NDArray:
    """n - 1 mixtures (n - 1, H, W) of n equal exposures (n, H, W) without anything they share, each with the noise of one exposure.

    Helmert's orthonormal contrasts: for two frames (a - b) / sqrt(2). Light, its fall-off and fixed patterns cancel.
    """
    count = np.arange(1, len(frames)).reshape(-1, 1, 1)
    return (np.cumsum(frames[:-1], axis=0) / count - frames[1:]) * np.sqrt(count / (count + 1))


def inliers(values: NDArray, reach: float = 8.0) -> NDArray[np.bool_]:
    """Which `values` lie within `reach` standard deviations of the median over the last two axes.

    The standard deviation is that of the inner 95 %: hot photosites, up to some percent, do not move it, and
    coarse rounding does not make it 0.
    """
    flat = values.reshape(*values.shape[:-2], -1)
    offset = np.abs(flat - np.median(flat, axis=-1, keepdims=True))
    scale = np.quantile(offset, 0.95, axis=-1, keepdims=True) / 1.96
    return (offset <= reach * scale).reshape(values.shape)


def green_squares(image: NDArray, cfa: Cfa) -> NDArray:
    """Only the 2 x 2 squares of green of an X-Trans mosaic, four per period of 6 x 6, side by side: (2/3 H, 2/3 W).

    Neighbours of one phase lie 6 photosites apart in X-Trans, too far for most scenes; these lie side by side.

    Raises:
        ValueError: the pattern has no such squares.
    """
    places = np.array([0, 1, 3, 4])
    green = np.asarray(cfa) == 1
    for top in range(3):
        for left in range(3):
            if np.roll(green, (-top, -left), (0, 1))[np.ix_(places, places)].all():
                rows = (top + np.arange(0, image.shape[0] - top - 5, 6)[:, None] + places).ravel()
                columns = (left + np.arange(0, image.shape[1] - left - 5, 6)[:, None] + places).ravel()
                return image[np.ix_(rows, columns)]
    raise ValueError(f"a pattern of 6 x 6 must have four 2 x 2 squares of green as X-Trans has, got {cfa}")


ROUNDS = 12
CHANNELS = "RGB"


@dataclass(frozen=True)
class TransferLine:
    """A fitted line with standard errors; `chi2` per degree of freedom, `kept` says which points took part."""

    gain: float
    gain_error: float
    floor: float
    floor_error: float
    chi2: float
    kept: NDArray[np.bool_]
    least: float = 0.0

    def variance(self, mean: NDArray) -> NDArray:
        """The line at `mean`, but not below `least`: half of the smallest variance it was fitted to."""
        return np.maximum(self.gain * mean + self.floor, self.least)

    @property
    def read_noise(self) -> float:
        """Square root of the floor; of the floor's error where the floor is less, and so cannot be told from 0."""
        return float(np.sqrt(max(self.floor, self.floor_error)))

    @property
    def read_noise_error(self) -> float:
        """Standard error of `read_noise`."""
        return self.floor_error / (2 * self.read_noise) if self.read_noise > 0 else np.inf


def solve_weighted_line(mean: NDArray, variance: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    """Slope and intercept of weighted least squares, and their covariance for weights 1 / error**2."""
    design = np.stack([mean, np.ones_like(mean)], axis=1)
    scale = np.array([max(np.abs(mean).max(), 1e-300), 1.0])
    normal = (design / scale).T @ (design / scale * weight[:, None])
    covariance = np.linalg.pinv(normal, hermitian=True)
    return covariance @ ((design / scale).T @ (weight * variance)) / scale, covariance / np.outer(scale, scale)


def fit_transfer_line(mean: NDArray, variance: NDArray, relative_error: NDArray, reject: float = 5.0) -> TransferLine:
    """Fit variance = gain * mean + floor to points (N,) whose standard errors are `relative_error` times the *line*.

    The error of a variance is proportional to the variance. Weights from the measured variances would favour those
    that came out small and pull the line down; so weights come from the line, round by round (quasi-likelihood of
    the gamma family, McCullagh and Nelder 1989, chapter 9). Points over `reject` standard deviations off, measured
    by the median deviation where that is more than 1, leave. Standard errors grow by sqrt(chi2) where chi2 > 1.

    Raises:
        ValueError: fewer than three points, or all at one mean.
    """
    if len(mean) < 3 or np.ptp(mean) <= 0:
        raise ValueError(f"a line needs at least 3 points at different means, got {len(mean)}; add exposure levels or larger frames")
    line = TransferLine(0.0, np.inf, float(np.median(variance)), np.inf, np.inf, np.ones(len(mean), bool), 0.5 * float(variance.min()))
    model = np.maximum(variance, 0.1 * np.median(variance))
    for _ in range(ROUNDS):
        weight = line.kept / (relative_error * model) ** 2
        (gain, floor), covariance = solve_weighted_line(mean, variance, weight)
        line = replace(line, gain=float(gain), floor=float(floor))
        model = line.variance(mean)
        deviation = np.abs(variance - model) / (relative_error * model)
        kept = deviation <= reject * max(1.0, 1.4826 * float(np.median(deviation)))
        chi2 = float((deviation[kept] ** 2).sum() / max(kept.sum() - 2, 1))
        line = replace(line, kept=kept if kept.sum() >= 3 else line.kept, chi2=chi2)
    gain_error, floor_error = np.sqrt(np.diag(covariance) * max(1.0, line.chi2))
    return replace(line, gain_error=float(gain_error), floor_error=float(floor_error))


def estimate_from(line: TransferLine, points: Points) -> NoiseEstimate:
    """Gain and read noise of a line; `poor` where the read noise cannot be told from none."""
    estimate = NoiseEstimate(line.gain, line.gain_error, line.read_noise, line.read_noise_error, points=points)
    if line.floor < line.floor_error:
        reason = f"the read noise drowns in photon noise (below about {line.read_noise:.2g}); measure darks or darker light"
        return replace(estimate, verdict="poor", reason=reason)
    return estimate


def by_channel(lines: Mapping[int, TransferLine]) -> dict[str, tuple[float, float, float]]:
    """`channel_gain` and `channel_gain_error` of an estimate, from the lines of those channels that have one."""
    none = (float("nan"), float("nan"))
    values = [(lines[index].gain, lines[index].gain_error) if index in lines else none for index in range(3)]
    return {
        "channel_gain": (values[0][0], values[1][0], values[2][0]),
        "channel_gain_error": (values[0][1], values[1][1], values[2][1]),
    }  # fmt: skip


def disagreement(gains: Sequence[float], errors: Sequence[float], fraction: float = 0.05, reach: float = 4.0) -> str:
    """What to say if the gains of R, G, B differ by more than `fraction` and `reach` standard errors, else an empty string."""
    known = [index for index, error in enumerate(errors) if np.isfinite(error) and error > 0]
    if len(known) < 2:
        return ""
    value, error = np.asarray(gains)[known], np.asarray(errors)[known]
    centre = float((value / error**2).sum() / (1 / error**2).sum())
    worst = int(np.argmax(np.abs(value - centre) / error))
    off = value[worst] - centre
    if abs(off) <= max(fraction * abs(centre), reach * error[worst]):
        return ""
    return f"the gain of {CHANNELS[known[worst]]} is {off / centre:+.0%} off the others"
