"""Light beyond what a prior has seen: the frame is restored darker, and brought back."""

import numpy as np

from lowlight_kedro.restoration.refresh import Exposure
from lowlight_kedro.sensor.cfa import tile_pattern
from lowlight_kedro.sensor.frame import balanced

BLOCK = 24  # photosites, whole periods of Bayer and X-Trans: its mean hardly knows noise


def headroom(exposure: Exposure, share: float, white: float = 1.0) -> float:
    """The factor k >= 1 by which light has to shrink so that at most a `share` of the frame has a channel above `white`.

    A prior of clean tiles has seen light in [0, 1], under many exposures, and knows nothing beyond: there the
    channels that a site did not measure stay behind, which shows as a grid and a cast. The posterior scales with the light, so
    restoring at exposure_ratio / k and multiplying by k is the same problem where the prior knows the answer.
    Judged by means over BLOCK x BLOCK photosites; 1 for frames that are smaller.
    """
    rows, columns = (side // BLOCK for side in exposure.signal.shape)
    if not rows or not columns:
        return 1.0
    signal = exposure.signal[: rows * BLOCK, : columns * BLOCK]
    light = balanced(signal, exposure.cfa, exposure.white_balance).reshape(rows, BLOCK, columns, BLOCK)
    pattern = tile_pattern(np.asarray(exposure.cfa), (BLOCK, BLOCK))
    means = [np.einsum("aibj,ij->ab", light, (pattern == channel) / (pattern == channel).sum()) for channel in range(3)]
    return max(1.0, float(np.quantile(np.max(means, axis=0), 1 - share)) * exposure.exposure_ratio / white)
