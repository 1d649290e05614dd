"""Black level of every photosite, and both levels of three values a pixel: LibRaw's numbers, or the file's own tags where these tell more.

LibRaw keeps whole numbers, shows four of them, and averages the DNG's levels per row and column. A spatial pattern
that is no 2x2 (X-Trans, 4x4) and fractions of a DN are lost there; a dark frame amplified 300 times shows both as a cast.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.tags import (
    ACTIVE_AREA,
    BLACK_DELTA_H,
    BLACK_DELTA_V,
    BLACK_LEVEL,
    BLACK_REPEAT,
    COMPRESSION,
    DNG_VERSION,
    FUJI_BLACK,
    MASKED_AREAS,
    SAMPLE_FORMAT,
    WHITE_LEVEL,
    Directory,
    Tags,
)
from lowlight_kedro.sensor.cfa import tile_pattern
from lowlight_kedro.sensor.masked import Rectangle, beside

FLOAT = 3  # SampleFormat; LibRaw rescales such a DNG to whole numbers, so its tags no longer apply
LOSSY = 34892  # Compression: JPEG of 8 bits, whose curve (MapPolynomial) LibRaw applies, so its levels no longer apply either


def colours(raw: Any, period: int) -> NDArray[np.uint8]:
    """LibRaw's colour numbers over (period, period), phase 0 at the top left of the visible area.

    Asked one by one: `raw_pattern` starts at the masked border and is wrong for X-Trans with a border over six.
    """
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    return np.array([[raw.raw_color(top + row, left + column) for column in range(period)] for row in range(period)], np.uint8)


def _pattern(repeat: tuple, values: tuple) -> NDArray[np.float64] | None:
    if len(repeat) != 2 or min(repeat) < 1 or repeat[0] * repeat[1] != len(values):
        return None
    return np.asarray(values, float).reshape(repeat)


def _deltas(directory: Directory, number: int, name: str, offset: int, visible: int, active: int) -> NDArray[np.float64]:
    """What each row or column of the visible area adds, or one zero.

    Raises:
        ValueError: the tag does not hold one value for each.
    """
    values = np.asarray(directory.get(number, ()), float)
    if not values.size:
        return np.zeros(1)
    if values.size != active:
        raise ValueError(f"its tag {name} holds {values.size} values, expected {active}, one for each row or column of the active area")
    return values[offset : offset + visible]


def _dng(directory: Directory, sizes: Any) -> NDArray[np.float64] | None:
    """The black level of a DNG's raw image over its smallest repeat, phase 0 at the visible area; None if not told."""
    if not {BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V} & directory.keys():
        return None
    pattern = _pattern(directory.get(BLACK_REPEAT, (1, 1)), directory.get(BLACK_LEVEL, (0,)))
    area = directory.get(ACTIVE_AREA, (0, 0, sizes.raw_height, sizes.raw_width))
    if pattern is None or len(area) != 4:
        return None
    down, right = sizes.top_margin - int(area[0]), sizes.left_margin - int(area[1])
    if min(down, right) < 0:
        return None
    columns = _deltas(directory, BLACK_DELTA_H, "BlackLevelDeltaH", right, sizes.width, int(area[3]) - int(area[1]))
    rows = _deltas(directory, BLACK_DELTA_V, "BlackLevelDeltaV", down, sizes.height, int(area[2]) - int(area[0]))
    pattern = np.roll(pattern, (-down, -right), (0, 1))
    shape = tuple(max(period, delta.size) for period, delta in zip(pattern.shape, (rows, columns), strict=True))
    return tile_pattern(pattern, (shape[0], shape[1])) + rows[:, None] + columns


def _tagged(tags: Tags, sizes: Any, levels: NDArray) -> NDArray[np.float64] | None:
    """The black level that the tags tell of the image that LibRaw decoded, or None."""
    if tags.find(DNG_VERSION):
        directory = tags.image(sizes.raw_height, sizes.raw_width)
        return _dng(directory, sizes) if directory and directory.get(SAMPLE_FORMAT, (1,))[0] != FLOAT else None
    values = tags.find(FUJI_BLACK) or ()
    side = round(len(values) ** 0.5)
    pattern = _pattern((side, side), values) if len(values) > 1 else None
    return pattern if pattern is not None and abs(pattern.min() - levels.min()) <= 1 else None


def black_of_planes(raw: Any, tags: Tags) -> NDArray[np.float32]:
    """DN of no light of three values a pixel, (3, 1, 1): BlackLevel of a DNG, the mean of its pattern; else LibRaw's numbers.

    Raises:
        ValueError: levels differ by row or column, which such files do not have.
    """
    directory = tags.image(raw.sizes.raw_height, raw.sizes.raw_width) or {}
    if any(np.any(directory.get(number, 0)) for number in (BLACK_DELTA_H, BLACK_DELTA_V)):
        raise ValueError("it has three values a pixel and a black level for each row or column, which is not read")
    values = np.asarray(directory.get(BLACK_LEVEL, raw.black_level_per_channel[:3]), float)
    if directory.get(SAMPLE_FORMAT, (1,))[0] == FLOAT or (values.size % 3 and values.size != 1):
        values = np.asarray(raw.black_level_per_channel[:3], float)
    planes = values.reshape(-1, 3).mean(axis=0) if values.size % 3 == 0 else np.repeat(values, 3)
    return planes[:, None, None].astype(np.float32)


def one_white(raw: Any, tags: Tags, values: NDArray[np.uint16], black: NDArray) -> tuple[NDArray[np.uint16], float, NDArray[np.float64]]:
    """Three values a pixel with one white level, and the factors (3,) that take LibRaw's white balance back to the file's own.

    A linear DNG may have a white level for each channel. The channels are stretched to the greatest of them here. LibRaw keeps the values,
    takes the greatest range above the first black for all, and puts what is wrong then into its white balance.
    """
    directory = tags.image(raw.sizes.raw_height, raw.sizes.raw_width) or {}
    levels = np.asarray(directory.get(WHITE_LEVEL, ()), float)
    other = directory.get(SAMPLE_FORMAT, (1,))[0] == FLOAT or directory.get(COMPRESSION, (1,))[0] == LOSSY
    if tags.find(DNG_VERSION) is None or other or levels.size not in (1, 3) or levels.min() <= black.max():
        return values, float(raw.white_level), np.ones(3)
    whites = np.broadcast_to(levels, 3)[:, None, None]
    span, white = whites - black, whites.max()
    if np.ptp(whites):
        values = np.clip(np.rint(black + (values - black) * ((white - black) / span)), 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return values, float(white), (span / span.max()).ravel()


def black_level(raw: Any, tags: Tags, period: int) -> NDArray[np.float32]:
    """DN of no light, a pattern with phase 0 at the top left of the visible area: as a rule of the CFA's `period`.

    Raises:
        ValueError: a tag contradicts the size of the image.
    """
    levels = np.asarray(raw.black_level_per_channel, float)
    pattern = _tagged(tags, raw.sizes, levels)
    if pattern is None:
        pattern = levels[colours(raw, period)]
    if all(period % side == 0 for side in pattern.shape):
        pattern = tile_pattern(pattern, (period, period))
    return pattern.astype(np.float32)


def visible_area(sizes: Any) -> Rectangle:
    """Where the picture lies on the sensor, by LibRaw's `sizes`."""
    return Rectangle(sizes.top_margin, sizes.left_margin, sizes.top_margin + sizes.height, sizes.left_margin + sizes.width)


def masked_areas(raw: Any, tags: Tags) -> tuple[list[Rectangle], str]:
    """Where photosites lie that see no light: by MaskedAreas of a DNG, of other raws all that lies beside the picture.

    The second is what is wrong with the tag, in words, or empty.
    """
    (height, width), visible = raw.raw_image.shape, visible_area(raw.sizes)
    if not tags.find(DNG_VERSION):
        return beside((height, width), visible), ""
    directory = tags.image(raw.sizes.raw_height, raw.sizes.raw_width) or {}
    numbers, levels = directory.get(MASKED_AREAS, ()), directory.get(SAMPLE_FORMAT, (1,))[0] != FLOAT
    if not numbers or not levels:
        return [], ""
    if len(numbers) % 4:
        return [], f"MaskedAreas unusable: it holds {len(numbers)} numbers, expected four for each area"
    areas = [Rectangle(*map(int, numbers[at : at + 4])) for at in range(0, len(numbers), 4)]
    for area in areas:
        inside = 0 <= area.top < area.bottom <= height and 0 <= area.left < area.right <= width
        apart = area.bottom <= visible.top or area.top >= visible.bottom or area.right <= visible.left or area.left >= visible.right
        if not (inside and apart):
            return [], f"MaskedAreas unusable: {tuple(area)} does not lie beside the picture {tuple(visible)} inside of {height} x {width}"
    return areas, ""
