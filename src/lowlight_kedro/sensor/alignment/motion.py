"""Where two aligned exposures differ by more than noise and a pixel of misalignment explain."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.alignment.noise import BLOCK, noise_variance
from lowlight_kedro.sensor.alignment.ratio import Ratio
from lowlight_kedro.sensor.alignment.registration import robust_sd
from lowlight_kedro.sensor.alignment.superpixels import binned

SIGNIFICANT = 5.5  # standard deviations; 3 million superpixels of white noise hold one beyond 5.2
WINSOR = 4.0  # standard deviations at which single superpixels (hot pixels) are cut off
SLACK = 1.0  # superpixels by which the frames may locally be off
UNEVEN = 0.02  # of the signal: flicker, flare and shutter that a still scene may show
TINY = 1e-20  # variance of frames without any noise
NEEDED = {1: 6, 2: 2, 4: 1, BLOCK: 1}  # by scale in superpixels: how many cells of a block must stand out


def _room(light: NDArray, scale: int) -> tuple[NDArray, NDArray]:
    """How far below and above a cell its neighbours lie, for a misalignment of SLACK superpixels."""
    from scipy.ndimage import maximum_filter, minimum_filter  # slow to import

    share = np.float32(min(1.0, SLACK / scale))
    return (minimum_filter(light, 3) - light) * share, (maximum_filter(light, 3) - light) * share


def _standing_out(residual: NDArray, light: NDArray, variance: NDArray, scale: int, slope: float) -> NDArray[np.bool_]:
    """Cells of `scale` superpixels whose mean residual is beyond noise and misalignment."""
    cell, clean = binned(residual, scale), binned(light, scale)
    deviation = np.sqrt(binned(variance, scale) / scale**2 + (UNEVEN * slope * clean) ** 2 + TINY)
    below, above = (slope * room for room in _room(clean, scale))
    spread = robust_sd(cell / np.sqrt(deviation**2 + np.maximum(above, -below) ** 2))
    excess = np.maximum(cell - above, below - cell)
    # noise correlated along rows adds up in cells: up to a factor of two is believed to be noise
    return excess > SIGNIFICANT * np.clip(spread, 1, 2) * deviation


def moving_blocks(short: NDArray, long: NDArray, usable: NDArray[np.bool_], ratio: Ratio) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Blocks of 8 superpixels that moved or changed, and blocks that could be tested.

    Args:
        short, long: aligned images (H, W), 0 = black; `usable` is False where either is saturated.

    Returns:
        Two masks (H // 8, W // 8). Differences are looked for at 1, 2, 4 and 8 superpixels: the coarse scales see through
        noise, the fine ones see texture that moved. The noise is measured on the pair (`noise_variance`).
    """
    slope = np.float32(1 / ratio.value)
    residual = np.where(usable, short - slope * long - np.float32(ratio.offset), 0).astype(np.float32)
    variance = noise_variance(residual, long, usable)
    below, above = (slope * room for room in _room(long, 1))
    limit = WINSOR * np.sqrt(variance + (UNEVEN * slope * long) ** 2)
    tested = binned(usable.astype(np.float32), BLOCK) > 0.5
    moved = np.zeros(tested.shape, bool)
    for scale, needed in NEEDED.items():
        part = residual if scale == 1 else np.clip(residual, below - limit, above + limit)
        out = _standing_out(part, long, variance, scale, float(slope))
        count = binned(out.astype(np.float32), BLOCK // scale) * (BLOCK // scale) ** 2
        moved |= (count >= needed - 0.5)[: tested.shape[0], : tested.shape[1]]
    return moved & tested, tested
