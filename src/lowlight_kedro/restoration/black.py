"""The black level of each channel, learned from one dark frame: by how loud its places are, and by its darkest place.

Loudness tells b, the height of the true black level above that of the header, see `loudness`. And light only adds: the darkest place shows
b and a little light. Both are likelihoods of b (3,). The prior is a Gaussian, and a spike at 0, because most headers are right: b is
believed where the frame shows it clearly better than 0.
"""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.restoration.loudness import LEAST_SITES, Blocks, of_blocks
from lowlight_kedro.sensor.noise import NoiseModel, photon

LEAST_BLOCKS = 4  # along a frame
PLACES, CAREFUL = (2, 3, 4, 6), 2.0  # blocks along the places that may be the darkest; the one with the lowest mean + 2 standard errors
TYPICAL, APART = 0.5, 0.1  # standard deviations of b and of what its channels differ by, units of the noise without light
UNEVEN = 0.1  # the same units: of what dark places differ by without light
DARKEST = 0.12  # light of the darkest place over the mean light, the median of 12 photographs
LIKELIER = 0.7  # natural logarithm of a ratio: twice
GRID = np.arange(-30, 31) * 0.04  # of b, the same units
LEAST_ERROR = 0.05  # that it resolves
ERRORS = np.linspace(-8, 8, 321)  # standard errors of a place's mean


def _pooled(field: NDArray, size: int) -> NDArray:
    """Sums over size x size blocks at all places (..., rows - size + 1, columns - size + 1)."""
    return np.lib.stride_tricks.sliding_window_view(field, (size, size), axis=(-2, -1)).sum(axis=(-2, -1))


def _darkest(sites: NDArray, shown: NDArray, noise: NoiseModel) -> tuple[float, float]:
    """Of sums (2, rows, columns) of one channel: the place that the first half calls the darkest, as the second shows it, and its error."""
    found = []
    for size in (size for size in PLACES if size <= min(sites.shape[1:])):
        count = _pooled(sites, size)
        level = np.where(count >= LEAST_SITES, _pooled(shown, size) / np.maximum(count, 1), np.inf)
        error = np.sqrt(noise.variance(np.where(np.isfinite(level), level, 0.0)) / np.maximum(count, 1))
        bound = np.where(np.isfinite(level[1]), level[0] + CAREFUL * error[0], np.inf)
        at = np.unravel_index(bound.argmin(), bound.shape)
        found.append((float(bound[at]), float(level[1][at]), float(error[1][at])))
    return min(found)[1:]


def by_darkness(blocks: Blocks, noise: NoiseModel) -> tuple[NDArray, NDArray]:
    """Mean (3,) of the darkest place of each channel, and its standard error.

    It is chosen by one half of the sites and measured by the other, so that noise does not make it darker; each half chooses once.
    """
    both = np.array([
        [_darkest(blocks.sites[order, channel], blocks.shown[order, channel], noise) for channel in range(3)] for order in ([0, 1], [1, 0])
    ])  # fmt: skip
    return both[..., 0].mean(axis=0), both[..., 1].mean(axis=0) / np.sqrt(1.5)  # the two are the same place in part


def _darkest_is(above: NDArray, error: float, typical: float) -> NDArray:
    """ln p of what the darkest place shows `above` b: light with p(l) ~ 1 / (l + typical), and noise; but for a constant."""
    light = above[:, None] + error * ERRORS
    seen = np.exp(-np.square(ERRORS) / 2) / (np.maximum(light, 0) + typical) * (light > 0)
    return np.log(np.maximum(seen.sum(axis=1), 1e-300))


def estimate(blocks: Blocks, noise: NoiseModel, known: float) -> NDArray | None:
    """Height (3,) of the true black level above the header's, signal units; None where the frame does not tell that it is another.

    Args:
        known: relative standard deviation of the variance that the noise model tells.
    """
    if min(blocks.left.shape[1:]) < LEAST_BLOCKS or not photon(noise) > 0:
        return None
    dark = float(np.sqrt(noise.variance(np.zeros(()))))
    loud, loud_error, doubled = (part / dark for part in of_blocks(blocks, noise))
    level, level_error = (part / dark for part in by_darkness(blocks, noise))
    loud_error, level_error = np.maximum(loud_error, LEAST_ERROR), np.hypot(level_error, UNEVEN)
    if not (np.isfinite(loud_error).all() and np.isfinite(level).all()):
        return None
    typical = DARKEST * np.maximum(blocks.shown.sum(axis=(0, 2, 3)) / blocks.sites.sum(axis=(0, 2, 3)) / dark, 0.1)
    each = np.stack(np.meshgrid(GRID, GRID, GRID, indexing="ij"), axis=-1)

    def gaussian(off: NDArray, alone: NDArray, together: NDArray) -> NDArray:
        """ln of a Gaussian density but for a constant, its covariance diag(alone^2) + together together^T."""
        return -np.einsum("...i,ij,...j->...", off, np.linalg.inv(np.diag(alone**2) + np.outer(together, together)), off) / 2

    red, green, blue = (_darkest_is(level[c] - GRID, level_error[c], typical[c]) for c in range(3))
    louder = each - np.clip(each, loud, np.maximum(loud, 0))  # more noise than the header's black explains may be texture
    likelihood = gaussian(louder, loud_error, known * doubled) + red[:, None, None] + green[:, None] + blue
    prior = gaussian(each, np.full(3, APART), np.full(3, TYPICAL))
    prior -= np.log(np.exp(prior).sum())
    nothing = float(likelihood[(len(GRID) // 2,) * 3])  # at b = 0
    peak = float((likelihood + prior).max())
    posterior = np.exp(likelihood + prior - peak)
    if np.log(posterior.sum()) + peak - nothing < LIKELIER:
        return None
    return np.asarray(dark * np.einsum("abc,abci->i", posterior, each) / posterior.sum())
