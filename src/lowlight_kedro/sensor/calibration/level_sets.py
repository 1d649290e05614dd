"""Patches without structure, gathered in sets of equal signal: variance against mean, ready to fit."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from lowlight_kedro.sensor.calibration.clipped import Curve
from lowlight_kedro.sensor.calibration.estimate import Points
from lowlight_kedro.sensor.calibration.patches import ENERGY_COEFFICIENTS, Patches

SMOOTH = 1.05  # structure / noise up to which a patch counts as smooth
LEAST_SHARE = 0.05  # of all patches, taken by rank where fewer are smooth
TOP = 0.9  # share of the ceiling up to which levels are used: real sensors bend before they clip
TRIMMED = 0.995  # energies above this quantile of their law are left out, and the mean corrected
# Quantiles and distribution of chi squared by the incomplete gamma function: scipy.stats is slow to import.
TRIM_AT, TYPICAL = (float(2 * gammaincinv(ENERGY_COEFFICIENTS / 2, share)) for share in (TRIMMED, 0.5))
BELOW_TRIM = float(gammainc(ENERGY_COEFFICIENTS / 2 + 1, TRIM_AT / 2))


def relative(patches: Patches, curve: Curve) -> tuple[NDArray, NDArray]:
    """Energy over the noise that `curve` expects, (N, Q), and structure over it, mean over quads, (N,)."""
    _, variance, ratio = curve.unclipped(patches.mean)
    expected = variance * ratio
    return patches.energy / expected, (patches.structure / expected).mean(axis=1)


def choose_smooth(structure: NDArray) -> NDArray[np.bool_]:
    """Patches whose structure the noise alone explains; the least structured 5 % where those are fewer.

    Structure comes from other coefficients than energy: choosing by it does not bias the energy.
    """
    return structure <= max(SMOOTH, np.quantile(structure, LEAST_SHARE))


def below_trim(share: NDArray) -> NDArray[np.bool_]:
    """Which of energies that follow chi^2_k / k, times a scale that their median tells, lie under the law's 99.5 % point."""
    return share <= np.median(share) * TRIM_AT / TYPICAL


def untrimmed(mean: float) -> float:
    """What the mean under `below_trim` says of the mean of all: E[x; x < q] = F_{k+2}(k q), F_k(k q) = TRIMMED."""
    return mean * TRIMMED / BELOW_TRIM


def level_sets(patches: Patches, smooth: NDArray[np.bool_], curve: Curve, levels: int) -> Points:
    """Mean and variance, as recorded, of up to `levels` sets of equal size.

    Sets are formed, and their members weighted, by the signal *around* a patch. Sorting by its own mean would sort its
    noise too and flatten the line; its neighbours know the signal and share no site with it (an instrumental variable).
    """
    mean, around, energy = (values[smooth].ravel() for values in (patches.mean, patches.around, patches.energy))
    _, own_variance, own_ratio = curve.unclipped(mean)
    _, variance, ratio = curve.unclipped(around)
    order = np.argsort(around, kind="stable")
    order = order[around[order] < TOP * curve.ceiling]
    parts = [part for part in np.array_split(order, levels) if part.size > 1]
    rows = [_level(mean[part], energy[part], energy[part] / (own_variance * own_ratio)[part], (variance * ratio)[part]) for part in parts]
    return Points(*np.array(rows).reshape(-1, 3).T)


def unclipped(points: Points, curve: Curve) -> Points:
    """Sets as they were before the sensor clipped them, given its noise."""
    signal, _, ratio = curve.unclipped(points.mean)
    return Points(signal, points.variance / ratio, points.variance_error / ratio)


def _level(mean: NDArray, energy: NDArray, share: NDArray, expected: NDArray) -> tuple[float, float, float]:
    """Mean, variance and its error of one set; `share` is energy over what it should be, weights are 1 / `expected`."""
    weight = 1 / expected / np.sum(1 / expected)
    kept = below_trim(share)
    spread = max(np.sqrt(2 / ENERGY_COEFFICIENTS), float(share[kept].std() / share[kept].mean()) if share[kept].any() else 0)
    variance = untrimmed(float(weight[kept] @ energy[kept] / weight[kept].sum()))
    size = 1 / float(weight @ weight)
    return float(weight @ mean), variance, max(variance, float(1 / (1 / expected).mean()) / 10) * spread / np.sqrt(size)
