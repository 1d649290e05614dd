"""A robust line through variance against mean, and how far to trust it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.clipped import Curve
from lowlight_kedro.sensor.calibration.estimate import Points

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
    starts = [np.log([steepest * share, points.variance.mean() * (1.2 - share)]) for share in (0.3, 0.7, 1.0)]
    best = min((least_squares(residuals, start, diff_step=1e-4, max_nfev=40) for start in starts), key=lambda fit: fit.cost)
    scatter = max(2 * best.cost / max(len(points.mean) - 2, 1), 1)
    gain, offset = (float(value) for value in np.exp(best.x))
    normal = best.jac.T @ best.jac
    if np.linalg.cond(normal) > 1e12:
        return Line(gain, np.inf, offset, np.inf)
    errors = np.sqrt(np.diag(np.linalg.inv(normal)) * scatter)
    return Line(gain, gain * float(errors[0]), offset, offset * float(errors[1]))


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
