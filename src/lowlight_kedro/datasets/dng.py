"""Write a mosaic as DNG (Adobe DNG specification 1.7.1), uncompressed, so that any raw decoder reads it."""

import struct
from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.datasets.tags import ISO_OVERFLOW
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

CFA_PHOTOMETRIC = 32803
EXIF_POINTER, SUB_IFDS = 34665, 330
PLACEHOLDER = 34664  # tifffile refuses to write the EXIF pointer itself; same place in the sorted directory
EXIF_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}  # from LibRaw's flip
Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def rational(value: float, finest: int = 1_000_000) -> tuple[int, int]:
    """Numerator and denominator, the latter at most `finest`."""
    fraction = Fraction(value).limit_denominator(finest)
    return fraction.numerator, fraction.denominator


def rationals(values: Sequence[float] | NDArray) -> list[int]:
    """Numerators and denominators; of values up to 65535 the numerators stay below 2^31."""
    return [part for value in np.ravel(values) for part in rational(float(value), 10_000)]


def exif_entries(frame: Frame, taken_at: str | None, lens: tuple[float, float] = (np.nan, np.nan)) -> list[Entry]:
    """What goes into the EXIF directory, in the order of the tags; what is not known (nan, None) stays out.

    `lens` is its f-number and its focal length in mm.
    """
    entries: list[Entry] = []
    if np.isfinite(frame.exposure_s):
        entries.append((33434, 5, 1, struct.pack("<II", *rational(frame.exposure_s))))
    if np.isfinite(lens[0]):
        entries.append((33437, 5, 1, struct.pack("<II", *rational(lens[0], 100))))
    if np.isfinite(frame.iso):
        entries.append((34855, 3, 1, struct.pack("<H", min(round(frame.iso), ISO_OVERFLOW))))
        entries.append((34866, 4, 1, struct.pack("<I", round(frame.iso))))  # RecommendedExposureIndex, for what exceeds 16 bits
    if taken_at is not None:
        stamp = datetime.fromisoformat(taken_at).strftime("%Y:%m:%d %H:%M:%S").encode() + b"\0"
        entries.append((36867, 2, len(stamp), stamp))
    if np.isfinite(lens[1]):
        entries.append((37386, 5, 1, struct.pack("<II", *rational(lens[1], 100))))
    return entries


def append_exif(path: Path, entries: list[Entry]) -> None:
    """Add the EXIF directory, which tifffile does not write, and point to it."""
    with tifffile.TiffFile(path) as file:
        pointer = file.pages.first.tags[PLACEHOLDER].offset
        below = file.pages.first.tags.get(SUB_IFDS)
    start = path.stat().st_size + path.stat().st_size % 2
    directory, values = struct.pack("<H", len(entries)), b""
    values_at = start + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", values_at + len(values))
        directory += struct.pack("<HHI", tag, kind, count) + place
        values += value.ljust(len(value) + len(value) % 2, b"\0") if len(value) > 4 else b""
    with path.open("rb+") as file:
        file.seek(start)
        file.write(directory + struct.pack("<I", 0) + values)
        file.seek(pointer)
        file.write(struct.pack("<HHII", EXIF_POINTER, 4, 1, start))
        if below is not None:  # tifffile writes the type IFD, which few readers of EXIF know
            file.seek(below.offset)
            file.write(struct.pack("<HH", SUB_IFDS, 4))


def _black_tags(frame: Frame, rows: Sequence[float] | None, columns: Sequence[float] | None) -> list[tuple]:
    """BlackLevelRepeatDim, BlackLevel (whole numbers where it can), BlackLevelDeltaH and V."""
    black = frame.black_level
    whole = np.array_equal(black, np.rint(black)) and black.min() >= 0 and black.max() <= np.iinfo(np.uint16).max
    level = ("H", black.size, tuple(int(value) for value in black.ravel())) if whole else ("2I", black.size, rationals(black))
    tags: list[tuple] = [(50713, "H", 2, black.shape, True), (50714, *level, True)]
    if columns is not None:
        tags.append((50715, "2i", len(columns), rationals(columns), True))
    if rows is not None:
        tags.append((50716, "2i", len(rows), rationals(rows), True))
    return tags


def xyz_to_camera(frame: Frame) -> NDArray[np.float64]:
    """The matrix XYZ -> camera of which `frame.camera_to_srgb` comes, white being D65 whatever the light was."""
    neutral = [1 / value for value in frame.white_balance]
    return np.diag(neutral) @ np.linalg.inv(frame.camera_to_srgb.astype(float)) @ SRGB_FROM_XYZ_D65


def text_tag(number: int, text: str) -> Any:
    """A text for tifffile: UTF-8, since names of cameras and files need not be ASCII."""
    return number, "s", 0, text.encode(), True


def camera_tags(frame: Frame, names: tuple[str, str] | None = None) -> list[Any]:
    """Make, Model, Orientation, AsShotNeutral and the place for the EXIF directory, see `append_exif`.

    `names` are maker and model; without them the first word of `frame.camera` is the maker.
    """
    make, model = names or (frame.camera.split(" ")[0], frame.camera.split(" ", 1)[-1])
    return [
        text_tag(271, make),
        text_tag(272, model),
        (274, "H", 1, EXIF_ORIENTATION[frame.orientation], True),
        (PLACEHOLDER, "I", 1, 0, True),
        (50728, "2I", 3, rationals([1 / value for value in frame.white_balance]), True),
    ]


def matrix_part(matrix: NDArray) -> list[int]:
    """Entries as fractions of 10,000, as makers write ColorMatrix and ForwardMatrix."""
    return [part for value in np.ravel(matrix) for part in (round(float(value) * 10_000), 10_000)]


def _tags(frame: Frame, area: tuple[int, int, int, int]) -> list[Any]:
    period = len(frame.cfa)
    tags: list[Any] = [
        *camera_tags(frame),
        (33421, "H", 2, (period, period), True),  # CFARepeatPatternDim
        (33422, "B", period * period, bytes(np.asarray(frame.cfa, np.uint8)), True),  # CFAPattern
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        text_tag(50708, frame.camera),  # UniqueCameraModel
        (50717, "H", 1, round(frame.white_level), True),  # WhiteLevel
        (50721, "2i", 9, matrix_part(xyz_to_camera(frame)), True),  # ColorMatrix1
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        (50829, "I", 4, area, True),  # ActiveArea
    ]
    if frame.noise_profile:
        tags.append((51041, "d", 2 * len(frame.noise_profile), tuple(value for pair in frame.noise_profile for value in pair), True))
    return tags


def write_dng(
    path: str | Path,
    frame: Frame,
    *,
    border: tuple[int, int, int, int] = (0, 0, 0, 0),
    row_black: Sequence[float] | None = None,
    column_black: Sequence[float] | None = None,
    taken_at: str | None = None,
) -> None:
    """Write `frame` atomically; all that it says but `white_from` becomes a tag.

    The colour matrix is the one with which white-balanced camera RGB is linear sRGB where
    `frame.camera_to_srgb` is the identity; white is D65 (CalibrationIlluminant1 = 21).

    Args:
        path: the file.
        frame: its black level is written as pattern, at most 64 x 64.
        border: masked photosites (value 0) at the top, left, bottom and right, outside ActiveArea.
        row_black: DN that the black level of each row has beyond the pattern (BlackLevelDeltaV).
        column_black: the same of each column (BlackLevelDeltaH).
        taken_at: start of the exposure, ISO 8601.

    Raises:
        DatasetError: the file cannot be written.
        ValueError: the black level is larger than a pattern can be.
    """
    if max(frame.black_level.shape) > 64:
        raise ValueError(
            f"a black level pattern of a DNG has at most 64 x 64 values, got {frame.black_level.shape}; use row_black, column_black"
        )
    top, left, bottom, right = border
    rows, columns = frame.mosaic_dn.shape
    tags = _tags(frame, (top, left, top + rows, left + columns)) + _black_tags(frame, row_black, column_black)
    mosaic = np.pad(frame.mosaic_dn, ((top, bottom), (left, right)))
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary, byteorder="<") as writer:
            writer.write(mosaic, photometric=CFA_PHOTOMETRIC, extratags=tags, software=False, metadata=None)
        append_exif(temporary, exif_entries(frame, taken_at))
