"""Write a mosaic as DNG (Adobe DNG specification 1.7.1), uncompressed, so that any raw decoder reads it."""

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.datasets.exif import append_directories, first_tags
from lowlight_kedro.datasets.metadata import TIME_FORMAT, of_frame
from lowlight_kedro.datasets.opcodes import bad_pixels_list, gain_maps
from lowlight_kedro.datasets.tags import MASKED_AREAS, MAX_BYTES, OPCODE_LISTS, TAKEN_AT, Tags
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

CFA_PHOTOMETRIC = 32803


def rational(value: float, finest: int = 1_000_000) -> tuple[int, int]:
    """Numerator and denominator, the latter at most `finest`."""
    fraction = Fraction(value).limit_denominator(finest)
    return fraction.numerator, fraction.denominator


def rationals(values: Sequence[float] | NDArray) -> list[int]:
    """Numerators and denominators; of values up to 65535 the numerators stay below 2^31."""
    return [part for value in np.ravel(values) for part in rational(float(value), 10_000)]


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


def neutral_tag(frame: Frame) -> Any:
    """AsShotNeutral."""
    return 50728, "2I", 3, rationals([1 / value for value in frame.white_balance]), True


def matrix_part(matrix: NDArray) -> list[int]:
    """Entries as fractions of 10,000, as makers write ColorMatrix and ForwardMatrix."""
    return [part for value in np.ravel(matrix) for part in (round(float(value) * 10_000), 10_000)]


def _tags(frame: Frame, area: tuple[int, int, int, int]) -> list[Any]:
    period = len(frame.cfa)
    tags: list[Any] = [
        neutral_tag(frame),
        (33421, "H", 2, (period, period), True),  # CFARepeatPatternDim
        (33422, "B", period * period, bytes(np.asarray(frame.cfa, np.uint8)), True),  # CFAPattern
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        text_tag(50708, frame.camera),  # UniqueCameraModel
        (50717, "H", 1, round(frame.white_level), True),  # WhiteLevel
        (50721, "2i", 9, matrix_part(xyz_to_camera(frame)), True),  # ColorMatrix1
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        (50829, "I", 4, area, True),  # ActiveArea
    ]
    if frame.defects is not None:
        opcodes = bad_pixels_list(frame.defects, *area[:2])
        tags.append((OPCODE_LISTS[0], 7, len(opcodes), opcodes, True))
    if frame.shading is not None:
        maps = gain_maps(frame.shading, frame.cfa)
        tags.append((OPCODE_LISTS[1], 7, len(maps), maps, True))
    if frame.lens is not None:
        tags.append((OPCODE_LISTS[2], 7, len(frame.lens.opcodes), frame.lens.opcodes, True))
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
    masked_left: NDArray[np.uint16] | None = None,
    taken_at: str | None = None,
) -> None:
    """Write `frame` atomically; all that it says but `white_from` and `masked` becomes a tag.

    The colour matrix is the one with which white-balanced camera RGB is linear sRGB where
    `frame.camera_to_srgb` is the identity; white is D65 (CalibrationIlluminant1 = 21).

    Args:
        path: the file.
        frame: its black level is written as pattern, at most 64 x 64, its shading point by point.
        border: masked photosites (value 0) at the top, left, bottom and right, outside ActiveArea.
        row_black: DN that the black level of each row has beyond the pattern (BlackLevelDeltaV).
        column_black: the same of each column (BlackLevelDeltaH).
        masked_left: masked photosites in place of those 0 at the left (H, border[1]), told as such (MaskedAreas).
        taken_at: start of the exposure, ISO 8601.

    Raises:
        DatasetError: the file cannot be written.
        ValueError: the black level is larger than a pattern can be, or the shading than a tag that is read (`tags.MAX_BYTES`).
    """
    if max(frame.black_level.shape) > 64:
        raise ValueError(
            f"a black level pattern of a DNG has at most 64 x 64 values, got {frame.black_level.shape}; use row_black, column_black"
        )
    if frame.shading is not None and 4 * frame.shading.size > MAX_BYTES // 2:
        raise ValueError(f"shading is written for up to {MAX_BYTES // 8} photosites, got {frame.shading.size}")
    top, left, bottom, right = border
    rows, columns = frame.mosaic_dn.shape
    tags = _tags(frame, (top, left, top + rows, left + columns)) + _black_tags(frame, row_black, column_black)
    stamp = datetime.fromisoformat(taken_at).strftime(TIME_FORMAT) if taken_at else None
    metadata = of_frame(frame, Tags(({TAKEN_AT: stamp},) if stamp else ()))
    mosaic = np.pad(frame.mosaic_dn, ((top, bottom), (left, right)))
    if masked_left is not None:
        mosaic[top : top + rows, :left] = masked_left
        tags.append((MASKED_AREAS, "I", 4, (top, 0, top + rows, left), True))
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary, byteorder="<") as writer:
            writer.write(mosaic, photometric=CFA_PHOTOMETRIC, extratags=first_tags(metadata) + tags, software=False, metadata=None)
        append_directories(temporary, metadata)
