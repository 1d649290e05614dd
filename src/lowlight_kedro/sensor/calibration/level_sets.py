"""Patches without structure, gathered in sets of equal signal: variance against mean, ready to fit.

A quad is four photosites of one colour at p, p+u, p+v, p+u+v, for any colour filter array. Its Haar transform has a mean, two
first differences and the mixed second difference (a - b - c + d) / 2, which no linear gradient reaches and which carries the
variance of a single site. In X-Trans the greens touch; in Bayer they are 1.4 sites apart, red and blue 2. Local mean, noise
energy and structure energy of a patch come from such coefficients, which white noise keeps independent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from lowlight_kedro.sensor.calibration.estimate import Points
from lowlight_kedro.sensor.calibration.line import Curve
from lowlight_kedro.sensor.cfa import Cfa

MAX_REACH = 8  # longest u^2 + v^2: two Bayer sites along both axes


@dataclass(frozen=True)
class Quad:
    """Four (row, column) offsets inside a block of `block_side` sites; they may reach into the next block."""

    channel: int
    sites: tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]


def block_side(cfa: Cfa) -> int:
    """Sites along a block: the smallest multiple of the period into which disjoint quads fit, 4 (Bayer) or 6 (X-Trans)."""
    return 6 if len(cfa) == 6 else 4


def _steps() -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs (u, v) of perpendicular-ish steps of equal length, shortest first."""
    vectors = [(y, x) for y, x in product(range(3), range(-2, 3)) if (y, x) > (0, 0)]
    pairs = [
        (u, v) for u, v in product(vectors, vectors) if u[0] * v[1] - u[1] * v[0] > 0 and u[0] ** 2 + u[1] ** 2 == v[0] ** 2 + v[1] ** 2
    ]
    lengths = {pair: sum(c**2 for step in pair for c in step) for pair in pairs}
    overlap = {(u, v): abs(u[0] * v[0] + u[1] * v[1]) for u, v in pairs}
    return sorted((pair for pair in pairs if lengths[pair] <= MAX_REACH + 2), key=lambda pair: (lengths[pair], overlap[pair]))


@lru_cache
def find_quads(cfa: Cfa) -> tuple[Quad, ...]:
    """Disjoint quads that tile the plane with the period of a block, most compact first.

    Bayer: two green, one red, one blue in 4 x 4, all sites used. X-Trans: four green, two red, two blue in 6 x 6,
    32 of 36 sites.
    """
    side, period = block_side(cfa), len(cfa)
    free, quads = np.ones((side, side), bool), []
    for u, v in _steps():
        for y, x in product(range(side), range(side)):
            sites = ((y, x), (y + u[0], x + u[1]), (y + v[0], x + v[1]), (y + u[0] + v[0], x + u[1] + v[1]))
            wrapped = {(row % side, column % side) for row, column in sites}
            colours = {cfa[row % period][column % period] for row, column in wrapped}
            if len(colours) == 1 and len(wrapped) == 4 and all(free[site] for site in wrapped):
                quads.append(Quad(colours.pop(), sites))
                for site in wrapped:
                    free[site] = False
    return tuple(quads)


def sites_of(signal: NDArray, quad: Quad, side: int) -> tuple[NDArray, ...]:
    """The four sites of every block's quad, each (rows of blocks, columns of blocks); blocks at the border are left out.

    `signal` (H, W); the first and last block of each axis serve as margin only.
    """
    rows, columns = signal.shape[0] // side - 2, signal.shape[1] // side - 2
    starts = [(side + y, side + x) for y, x in quad.sites]
    return tuple(signal[y : y + rows * side : side, x : x + columns * side : side] for y, x in starts)


def haar(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Orthonormal transform of four sites: scaled mean, two first differences, mixed second difference."""
    sums, differences = (a + b, c + d), (a - b, c - d)
    return (sums[0] + sums[1]) / 2, (sums[0] - sums[1]) / 2, (differences[0] + differences[1]) / 2, (differences[0] - differences[1]) / 2


BLOCKS = 4  # blocks along a patch: 16 x 16 sites (Bayer), 24 x 24 (X-Trans)
ENERGY_COEFFICIENTS = 8  # per quad and patch
STRUCTURE_COEFFICIENTS = 36
STRIP = 32  # rows of patches worked on at a time: bounds the memory


@dataclass(frozen=True)
class Patches:
    """Statistics of patches (N) by quad (Q), each array (N, Q), units of white - black.

    Attributes:
        mean: mean signal of the sites of the quad.
        energy: mean square of the coefficients that measure the noise, `ENERGY_COEFFICIENTS` of them:
            differences, between blocks side by side, of the mixed second difference of a quad. Gradients, and whatever
            all sites of a row share, cancel. Expectation: the variance of a site, where the scene is smooth.
        structure: mean square of `STRUCTURE_COEFFICIENTS` others, orthogonal to those: the rest of the mixed difference,
            changes of the first differences, curvature of the means.
        saturated: fraction of sites at or above the ceiling.
        around: mean of `mean` over the eight neighbouring patches: knows the signal, shares no site.
    """

    mean: NDArray
    around: NDArray
    energy: NDArray
    structure: NDArray
    saturated: NDArray


def _split(coefficients: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    """Haar steps between neighbours along `axis`: (sums, differences) over sqrt 2."""
    even, odd = coefficients.swapaxes(0, axis)[::2], coefficients.swapaxes(0, axis)[1::2]
    return ((even + odd) / np.sqrt(2)).swapaxes(0, axis), ((even - odd) / np.sqrt(2)).swapaxes(0, axis)


def _sums(values: NDArray, rows: int, columns: int) -> NDArray:
    """Sums over the patches of an array of coefficients or their squares, (rows * columns,)."""
    height, width = values.shape[0] // rows, values.shape[1] // columns
    return values.reshape(rows, height, columns, width).sum(axis=(1, 3)).ravel()


def _quad_statistics(sites: tuple[NDArray, ...], ceiling: float) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Mean, energy, structure and saturated fraction of one quad, over whole patches."""
    rows, columns = sites[0].shape[0] // BLOCKS, sites[0].shape[1] // BLOCKS
    sites = tuple(site[: rows * BLOCKS, : columns * BLOCKS] for site in sites)
    saturated = np.stack(sites) >= ceiling
    average, first, second, mixed = haar(*sites)
    smooth_mixed, noise = _split(mixed, 1)
    structure = _sums(smooth_mixed**2, rows, columns)
    for band in (first, second):
        low, high = _split(band, 1)
        structure += _sums(high**2, rows, columns) + _sums(_split(low, 0)[1] ** 2, rows, columns)
    structure += _sums(_split(_split(average, 1)[1], 0)[1] ** 2, rows, columns)
    sites_per_patch = 4 * BLOCKS**2
    return (
        _sums(average, rows, columns) / (2 * BLOCKS**2),
        _sums(noise**2, rows, columns) / ENERGY_COEFFICIENTS,
        structure / STRUCTURE_COEFFICIENTS,
        _sums(saturated.sum(axis=0, dtype=np.float32), rows, columns) / sites_per_patch,
    )


def _strips(signal: NDArray, side: int) -> Iterator[NDArray]:
    """Overlapping strips of whole patches with one block of margin above and below."""
    step = STRIP * BLOCKS * side
    for top in range(0, signal.shape[0] - (BLOCKS + 2) * side + 1, step):
        yield signal[top : top + step + 2 * side]


def patch_statistics(signal: NDArray, cfa: Cfa, *, ceiling: float) -> Patches:
    """Statistics of all patches of a mosaic (H, W), row of patches by row of patches; none where it is too small."""
    side, quads = block_side(cfa), find_quads(cfa)
    found: list[list[tuple[NDArray, ...]]] = [[_of_strip(strip, quad, side, ceiling) for quad in quads] for strip in _strips(signal, side)]
    if not found or not found[0][0][0].size:
        return Patches(*(np.empty((0, len(quads))) for _ in range(5)))
    mean, energy, structure, saturated = (
        np.concatenate([np.stack([of_quad[i] for of_quad in strip], axis=1) for strip in found]).astype(float) for i in range(4)
    )
    columns = (signal.shape[1] // side - 2) // BLOCKS
    return Patches(mean, _neighbours(mean.reshape(-1, columns, len(quads))).reshape(mean.shape), energy, structure, saturated)


def _neighbours(mean: NDArray) -> NDArray:
    """Mean over the up to eight neighbours of each patch, (rows, columns, Q)."""
    from scipy.ndimage import convolve  # slow to import

    ring = np.ones((3, 3, 1))
    ring[1, 1] = 0
    count = convolve(np.ones((*mean.shape[:2], 1)), ring, mode="constant")
    return convolve(mean, ring, mode="constant") / np.maximum(count, 1)


def _of_strip(strip: NDArray, quad: Quad, side: int, ceiling: float) -> tuple[NDArray, ...]:
    return _quad_statistics(sites_of(strip, quad, side), ceiling)


SMOOTH = 1.05  # structure / noise up to which a patch counts as smooth
LEAST_FRACTION = 0.05  # of all patches, taken by rank where fewer are smooth
TOP = 0.9  # fraction of the ceiling up to which levels are used: real sensors bend before they clip
TRIMMED = 0.995  # energies above this quantile of their law are left out, and the mean corrected
# Quantiles and distribution of chi squared by the incomplete gamma function: scipy.stats is slow to import.
TRIM_AT, TYPICAL = (float(2 * gammaincinv(ENERGY_COEFFICIENTS / 2, fraction)) for fraction in (TRIMMED, 0.5))
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
    return structure <= max(SMOOTH, np.quantile(structure, LEAST_FRACTION))


def below_trim(fraction: NDArray) -> NDArray[np.bool_]:
    """Which of energies that follow chi^2_k / k, times a scale that their median tells, lie under the law's 99.5 % point."""
    return fraction <= np.median(fraction) * TRIM_AT / TYPICAL


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


def _level(mean: NDArray, energy: NDArray, fraction: NDArray, expected: NDArray) -> tuple[float, float, float]:
    """Mean, variance and its error of one set; `fraction` is energy over what it should be, weights are 1 / `expected`."""
    weight = 1 / expected / np.sum(1 / expected)
    kept = below_trim(fraction)
    spread = max(np.sqrt(2 / ENERGY_COEFFICIENTS), float(fraction[kept].std() / fraction[kept].mean()) if fraction[kept].any() else 0)
    variance = untrimmed(float(weight[kept] @ energy[kept] / weight[kept].sum()))
    size = 1 / float(weight @ weight)
    return float(weight @ mean), variance, max(variance, float(1 / (1 / expected).mean()) / 10) * spread / np.sqrt(size)
