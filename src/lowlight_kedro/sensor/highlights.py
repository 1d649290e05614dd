"""Light next to blown green photosites, whose colour nobody measured, fades to neutral."""

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa, masks

REACH = 4  # pixels around a blown site: red and blue are interpolated over so many
FULL = 1 / 5  # fraction of blown green sites within them from which on a colour counts as unknown
BLOWN = 0.99  # of white


def _counts(where: NDArray[np.bool_], reach: int) -> NDArray[np.float64]:
    """How many sites within (2 reach + 1)^2 around each, cut off at the edges."""
    from scipy.ndimage import uniform_filter  # slow to import

    side = 2 * reach + 1
    return np.rint(side**2 * uniform_filter(where.astype(np.float64), side, mode="constant"))


def unknown_colour(signal: NDArray, cfa: Cfa) -> NDArray[np.float32]:
    """How far the colour of a pixel is unknown, 0 to 1 (H, W): by the fraction of blown green sites within REACH.

    Args:
        signal: of the photosites (H, W), 1 = white, or of three values a pixel (3, H, W).
        cfa: their filters.
    """
    green = masks(cfa, signal.shape[-2:])[1]
    blown = _counts(green & ((signal[1] if cfa == UNFILTERED else signal) >= BLOWN), REACH)
    return np.clip(blown / (FULL * np.maximum(_counts(green, REACH), 1)), 0, 1).astype(np.float32)


def faded(light: NDArray, signal: NDArray, cfa: Cfa) -> NDArray:
    """White-balanced light (3, H, W) whose red and blue go to green where the colour is unknown and green is the least or the greatest.

    A twig before a blown sky dims green sites that red and blue next to it, at white, do not show: it would be magenta. Where only red or
    only blue exceeds green, as in lamps, the colour stays. With R and B both above G (or both below), the nearer by e and the farther by
    f, they go by min(1, 2 e / f) of the way, so that nothing changes abruptly. Nothing changes away from blown sites.
    """
    unknown = unknown_colour(signal, cfa)
    rows, columns = np.nonzero(unknown)
    if not len(rows):
        return light
    red, green, blue = light[:, rows, columns]
    apart = np.stack([red - green, blue - green])
    nearer, farther = np.sort(np.abs(apart), axis=0)
    fraction = np.where(apart[0] * apart[1] > 0, np.minimum(2 * nearer / np.maximum(farther, 1e-12), 1), 0) * unknown[rows, columns]
    result = light.copy()
    result[0, rows, columns], result[2, rows, columns] = (green + (1 - fraction) * channel for channel in apart)
    return result
