"""Local mean, noise energy and structure energy of a mosaic, all from coefficients that white noise keeps independent."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.calibration.quads import Quad, block_side, find_quads, haar, sites_of
from lowlight_kedro.sensor.cfa import Cfa

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
        saturated: share of sites at or above the ceiling.
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
    """Mean, energy, structure and saturated share of one quad, over whole patches."""
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
