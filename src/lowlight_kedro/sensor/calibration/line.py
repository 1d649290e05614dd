"""A robust line through variance against mean, how far to trust it, and what clipping does to both.

A Gaussian that a sensor clips: its mean and variance, and the way back (Foi et al., IEEE TIP 2008, section IV).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lowlight_kedro.sensor.calibration.estimate import Points
from lowlight_kedro.sensor.cfa import Cfa

ROBUST = 1.5  # residuals above this many errors lose weight; those below the curve keep it: texture only adds


@dataclass(frozen=True)
class Line:
    """Var = gain * s + offset, with one standard error each."""

    gain: float
    gain_error: float
    offset: float
    offset_error: float


def fit_line(points: Points, fine_contrast: float) -> Line:
    """Most likely line, residuals Gaussian below and up to 1.5 errors above it, Cauchy-like beyond.

    Errors add, in squares, the curvature of the likelihood, times the scatter about the line where that exceeds 1, and
    what a contrast too fine to see would do to the line. Its variance is c s^2, 0 <= c <= fine_contrast^2, less where
    the points themselves are too straight for so much.
    """
    design = np.stack([points.mean, np.ones_like(points.mean), points.mean**2], axis=1) / points.variance_error[:, None]
    target = points.variance / points.variance_error
    units = np.abs(design).max(axis=0)
    design, weight = design / units, np.ones(len(target))
    for _ in range(30):
        weighted = (design * weight[:, None]).T
        inverse = np.linalg.pinv((weighted @ design)[:2, :2])
        solution = inverse @ (weighted[:2] @ target)
        residual = target - design[:, :2] @ solution
        weight = np.where(residual > ROBUST, (ROBUST / np.maximum(residual, ROBUST)) ** 2, 1)
    scatter = max(float(weight @ residual**2) / max(weight.sum() - 2, 1), 1)
    bend = _most_bend(weighted @ design, weighted @ target, scatter, fine_contrast**2 * units[2])
    errors = np.hypot(np.sqrt(np.diag(inverse) * scatter), inverse @ (weighted[:2] @ design[:, 2]) * bend) / units[:2]
    gain, offset = solution / units[:2]
    return Line(float(gain), float(errors[0]), float(offset), float(errors[1]))


def _most_bend(normal: NDArray, right: NDArray, scatter: float, prior: float) -> float:
    """Coefficient of s^2 plus its error, both given 0 +- `prior` besides the points; at most `prior`."""
    if not prior:
        return 0.0
    normal = normal + np.diag([0, 0, scatter / prior**2])
    inverse = np.linalg.pinv(normal)
    bend, error = float((inverse @ right)[2]), float(np.sqrt(inverse[2, 2] * scatter))
    return min(max(bend, 0.0) + error, prior)


def root(offset: float, error: float) -> tuple[float, float]:
    """Square root of a measured variance and its error: mean and deviation of r >= 0 given r^2 = offset +- error.

    Far from 0 this is sqrt(offset) +- error / 2 sqrt(offset); it stays positive where the offset came out negative.
    """
    if not np.isfinite(error):
        return float("nan"), float("inf")
    top = np.sqrt(max(offset, 0) + 6 * error)
    r: NDArray = np.linspace(0, top, 4001)[1:]
    exponent = -(((r**2 - offset) / error) ** 2) / 2
    weight = np.exp(exponent - exponent.max())
    mean = float((weight * r).sum() / weight.sum())
    return mean, float(np.sqrt((weight * (r - mean) ** 2).sum() / weight.sum()))


GRID = 800
FEW_PHOTONS = 30  # below, a clipped Poisson count is not Gaussian enough
PILED_UP = 1e-4  # fraction of sites at an extreme value from which the camera may be taken to clip there
NEAR_WHITE, CROWDED = 0.9, 1e-3  # a brightest value above this is saturation if so many sites lie within 2 % of it


def find_floor(signal: NDArray) -> float:
    """The smallest value of a mosaic where the camera clips there, else -inf."""
    return -_hard_clip(-signal)


def find_ceiling(signal: NDArray, cfa: Cfa) -> float:
    """The lowest value at which a colour saturates, else inf.

    A colour saturates where sites pile up at its largest value, or crowd below it near white: some cameras scale
    colours after clipping, and wells differ.
    """
    period, found = len(cfa), [np.inf]
    for row, column in np.ndindex(period, period):
        plane = signal[row::period, column::period]
        top = float(plane.max()) if plane.size else 0.0
        crowd = np.count_nonzero(plane >= 0.98 * top) if top >= NEAR_WHITE else 0
        found.append(top if crowd > CROWDED * plane.size else _hard_clip(plane))
    return min(found)


def _hard_clip(values: NDArray) -> float:
    """The largest value if more than twice as many sites have it as have the next one, else inf."""
    if not values.size:
        return np.inf
    top = values.max()
    below = values < top
    beside = values.max(where=below, initial=-np.inf)
    here = np.count_nonzero(~below)
    return float(top) if here > max(2 * np.count_nonzero(values == beside), PILED_UP * values.size, 10) else np.inf


def clipped_moments(mean: NDArray, deviation: NDArray, floor: float, ceiling: float) -> tuple[NDArray, NDArray]:
    """Mean and variance of clip(x, floor, ceiling) for x ~ N(mean, deviation^2); `floor` may be -inf, `ceiling` inf.

    With A, B the clips in standard deviations, P = Phi(B) - Phi(A) and D = phi(A) - phi(B), moments about `mean` are
    E1 = A Phi(A) + B Phi(-B) + D and E2 = A^2 Phi(A) + B^2 Phi(-B) + P + A phi(A) - B phi(B).
    """
    low = np.clip((floor - mean) / deviation, -40, 40)
    high = np.clip((ceiling - mean) / deviation, -40, 40)
    density_low, density_high = (np.exp(-(edge**2) / 2) / np.sqrt(2 * np.pi) for edge in (low, high))
    below, above = ndtr(low), ndtr(-high)
    first = low * below + high * above + density_low - density_high
    second = low**2 * below + high**2 * above + (1 - below - above) + low * density_low - high * density_high
    return mean + deviation * first, deviation**2 * np.maximum(second - first**2, 0)


def poisson_moments(signal: NDArray, gain: float, read_noise: float, floor: float) -> tuple[NDArray, NDArray]:
    """Mean and variance of max(gain * n + read, floor), n Poisson of mean signal / gain <= FEW_PHOTONS, read Gaussian.

    Exact where the Gaussian of the same variance is too symmetric.
    """
    from scipy.stats import poisson  # slow to import

    count = np.arange(int(FEW_PHOTONS + 9 * np.sqrt(FEW_PHOTONS)))
    probability = poisson.pmf(count, signal[:, None] / gain)
    mean, variance = clipped_moments(gain * count, np.full(count.shape, read_noise), floor, np.inf)
    total = probability @ mean
    return total, probability @ (variance + mean**2) - total**2


@dataclass(frozen=True)
class Curve:
    """Noise of a clipping sensor: Var = gain * s + offset before clipping, s >= 0; `offset` = read_noise^2."""

    gain: float
    offset: float
    floor: float = -np.inf
    ceiling: float = np.inf

    def _table(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Signal, variance, and mean and variance after clipping, on a grid that is dense near black."""
        top = self.ceiling if np.isfinite(self.ceiling) else 1.0
        reach = top + 6 * np.sqrt(self.gain * top + self.offset)
        signal = reach * np.linspace(0, 1, GRID) ** 3
        variance = np.maximum(self.gain * signal + self.offset, 1e-18)
        mean, clipped = clipped_moments(signal, np.sqrt(variance), self.floor, self.ceiling)
        few = signal < FEW_PHOTONS * self.gain
        if np.isfinite(self.floor) and few.any():
            mean[few], clipped[few] = poisson_moments(signal[few], self.gain, np.sqrt(self.offset), self.floor)
        return signal, variance, mean, clipped

    def unclipped(self, observed_mean: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Signal, variance and clipped variance / variance where the mean of clipped values is `observed_mean`.

        Below the mean that no light leaves (noise in the means) the signal goes on linearly below 0.
        """
        signal, variance, mean, clipped = self._table()
        found = np.interp(observed_mean, mean, signal) + np.minimum(observed_mean - mean[0], 0)
        ratio = np.interp(observed_mean, mean, clipped / variance)
        return found, np.maximum(self.gain * np.maximum(found, 0) + self.offset, 1e-18), np.clip(ratio, 1e-6, 1)


def fit_clipped(points: Points, clips: Curve) -> Line:
    """The line whose clipped moments pass through clipped `points`; likelihood and errors as in `fit_line`.

    Needed where dark levels are clipped: undoing the clip by the current line and fitting again can run away.
    """

    from scipy.optimize import least_squares  # slow to import

    def residuals(logarithms: NDArray) -> NDArray:
        gain, offset = np.exp(logarithms)
        _, variance, ratio = replace(clips, gain=float(gain), offset=float(offset)).unclipped(points.mean)
        residual = (points.variance - variance * ratio) / points.variance_error
        far = ROBUST * np.sqrt(1 + 2 * np.log(np.maximum(residual, ROBUST) / ROBUST))
        return np.where(residual > ROBUST, far, residual)

    steepest = points.variance[-1] / max(points.mean[-1], 1e-9)
    if not steepest > 0:
        raise ValueError("its brightest blocks do not vary, expected noise")
    starts = [np.log([steepest * fraction, points.variance.mean() * (1.2 - fraction)]) for fraction in (0.3, 0.7, 1.0)]
    best = min((least_squares(residuals, start, diff_step=1e-4, max_nfev=40) for start in starts), key=lambda fit: fit.cost)
    scatter = max(2 * best.cost / max(len(points.mean) - 2, 1), 1)
    gain, offset = (float(value) for value in np.exp(best.x))
    normal = best.jac.T @ best.jac
    if np.linalg.cond(normal) > 1e12:
        return Line(gain, np.inf, offset, np.inf)
    errors = np.sqrt(np.diag(np.linalg.inv(normal)) * scatter)
    return Line(gain, gain * float(errors[0]), offset, offset * float(errors[1]))
