"""Colour filter arrays as data: a small periodic table of channel numbers (0 R, 1 G, 2 B), or none at all.

A mosaic is (H, W). Without filters, `UNFILTERED`, every pixel tells all three values, and what is a mosaic elsewhere is (3, H, W).
"""

import numpy as np
from numpy.typing import NDArray

Cfa = tuple[tuple[int, ...], ...]

UNFILTERED: Cfa = ()  # linear DNG, sRAW, sensors in layers
BAYER_RGGB: Cfa = ((0, 1), (1, 2))
XTRANS: Cfa = (
    (1, 1, 0, 1, 1, 2),
    (1, 1, 2, 1, 1, 0),
    (2, 0, 1, 0, 2, 1),
    (1, 1, 2, 1, 1, 0),
    (1, 1, 0, 1, 1, 2),
    (0, 2, 1, 2, 0, 1),
)
BAYER_NAMES = ("RGGB", "BGGR", "GRBG", "GBRG")
NAMED = {"xtrans": XTRANS, "rgb": UNFILTERED}


def name(cfa: Cfa) -> str:
    """`"xtrans"` for a 6x6 pattern, `"rgb"` without filters, else its letters row by row, e.g. `"RGGB"`."""
    if cfa == UNFILTERED:
        return "rgb"
    return "xtrans" if len(cfa) == 6 else "".join("RGB"[channel] for row in cfa for channel in row)


def pattern_of(cfa: str | Cfa) -> Cfa:
    """Letters of a Bayer pattern row by row, `xtrans`, `rgb` for three values a pixel, or the pattern itself.

    Raises:
        ValueError: there is no such name.
    """
    if not isinstance(cfa, str):
        return tuple(tuple(row) for row in cfa)
    if cfa.lower() in NAMED:
        return NAMED[cfa.lower()]
    if cfa.upper() not in BAYER_NAMES:
        raise ValueError(f"cfa must be one of {', '.join((*BAYER_NAMES, *NAMED))}, got {cfa!r}")
    first, second = ("RGB".index(letter) for letter in cfa.upper()[:2]), ("RGB".index(letter) for letter in cfa.upper()[2:])
    return tuple(first), tuple(second)


def tile_pattern(pattern: NDArray, shape: tuple[int, int]) -> NDArray:
    """Repeat a periodic `pattern` (p, q) over an image of `shape` (H, W); phase 0 at the top left."""
    rows, columns = np.arange(shape[0]) % pattern.shape[0], np.arange(shape[1]) % pattern.shape[1]
    return pattern[np.ix_(rows, columns)]


def masks(cfa: Cfa, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which channel each photosite measures, as (3, H, W); exactly one channel per site of a mosaic."""
    if cfa == UNFILTERED:
        return np.ones((3, *shape), bool)
    return tile_pattern(np.asarray(cfa), shape)[None] == np.arange(3)[:, None, None]


def sample(rgb: NDArray, cfa: Cfa) -> NDArray:
    """The mosaic (H, W) that a sensor with `cfa` sees of an image `rgb` (3, H, W); without filters the image itself."""
    if cfa == UNFILTERED:
        return rgb
    return np.where(masks(cfa, rgb.shape[1:]), rgb, 0).sum(axis=0, dtype=rgb.dtype)


def embed(mosaic: NDArray, cfa: Cfa) -> NDArray:
    """The adjoint of `sample`: (H, W) into (3, H, W), zero where nothing was measured."""
    return mosaic if cfa == UNFILTERED else masks(cfa, mosaic.shape) * mosaic[None]


def from_colours(colours: NDArray) -> Cfa:
    """The smallest pattern, 2x2 or 6x6, of a map of LibRaw colour numbers (H, W), second green = green.

    Raises:
        ValueError: the map has no such period or a fourth colour.
    """
    channel = np.where(colours == 3, 1, colours).astype(int)
    for period in (2, 6):
        pattern = channel[:period, :period]
        corner = channel[:36, :36]
        if pattern.max() <= 2 and np.array_equal(tile_pattern(pattern, corner.shape), corner):
            return tuple(tuple(int(value) for value in row) for row in pattern)
    raise ValueError("the colour filter array is neither 2x2 Bayer nor 6x6 X-Trans in R, G, B")
