"""How much two aligned exposures differ by noise alone, measured on the pair itself."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.alignment.registration import high_pass
from lowlight_kedro.sensor.alignment.superpixels import binned

BLOCK = 8  # superpixels
LEVELS = 12


def noise_variance(difference: NDArray, light: NDArray, usable: NDArray[np.bool_]) -> NDArray:
    """Variance of white noise in `difference` (H, W) as a function of `light` (H, W), per pixel.

    Blocks are sorted by light into a dozen levels of equal count; of each level the half with the smoothest light counts, and
    the median of their high-pass power is its variance. Linear between levels, constant beyond.

    Args:
        difference: short exposure minus scaled long one.
        light: the clean image.
        usable: pixels without saturation.

    Returns:
        (H, W); nan everywhere where no block is usable.
    """
    inside = binned(usable[:-1, :-1].astype(np.float32), BLOCK) == 1
    level = binned(light[:-1, :-1], BLOCK)[inside]
    power, texture = (binned(high_pass(part) ** 2, BLOCK)[inside] for part in (difference, light))
    if not level.size:
        return np.full(light.shape, np.nan, np.float32)
    places, variances = [], []
    for members in np.array_split(level.argsort(kind="stable"), min(LEVELS, max(1, level.size // 8))):
        smooth = members[texture[members] <= np.median(texture[members])]
        places.append(np.median(level[smooth]))
        variances.append(np.median(power[smooth]))
    return np.interp(light, places, variances).astype(np.float32)
