"""Mosaics as DNG (Adobe DNG 1.7.1), uncompressed, so that any raw decoder reads them; and the colours of a raw in the terms of DNG."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from lowlight_kedro.datasets.tags import (
    ANALOG_BALANCE,
    BASELINE_EXPOSURES,
    CAMERA_CALIBRATIONS,
    COLOR_MATRICES,
    DNG_VERSION,
    FORWARD_MATRICES,
    ILLUMINANTS,
    MASKED_AREAS,
    MAX_BYTES,
    OPCODE_LISTS,
    TAKEN_AT,
    UNIQUE_CAMERA,
    Tags,
    read_tags,
)
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


D65, UNKNOWN_LIGHT = 21, 0  # as CalibrationIlluminant
GUESSED = "guessed: sRGB, nothing is known of this camera's colours"
PROFILE_NAME = 50936
LEAST_DETERMINANT = 1e-6


@dataclass(frozen=True)
class Calibration:
    """The camera under one light: XYZ -> camera, and where known white-balanced camera -> XYZ (D50)."""

    illuminant: int
    to_camera: NDArray
    forward: NDArray | None = None


@dataclass(frozen=True)
class Colour:
    """One or two calibrations, the name under which editors look the camera up, and the brightness the maker wants (EV)."""

    calibrations: tuple[Calibration, ...]
    camera: str
    baseline_exposure: float = 0.0
    guessed: bool = False

    def tags(self) -> list[Any]:
        """UniqueCameraModel, ColorMatrix, CalibrationIlluminant, ForwardMatrix and BaselineExposureOffset, for tifffile.

        A guessed matrix stands under an unknown light, and ProfileName says what it is.
        """
        tags: list[Any] = [text_tag(UNIQUE_CAMERA, self.camera)]
        if self.guessed:
            tags.append(text_tag(PROFILE_NAME, GUESSED))
        for place, calibration in enumerate(self.calibrations):
            tags.append((COLOR_MATRICES[place], "2i", 9, matrix_part(calibration.to_camera), True))
            tags.append((ILLUMINANTS[place], "H", 1, calibration.illuminant, True))
            if calibration.forward is not None:
                tags.append((FORWARD_MATRICES[place], "2i", 9, matrix_part(calibration.forward), True))
        if self.baseline_exposure:
            tags.append((BASELINE_EXPOSURES[1], "2i", 1, (round(self.baseline_exposure * 10_000), 10_000), True))
        return tags


def _numbers(tags: Tags, number: int, count: int) -> NDArray | None:
    values = tags.find(number)
    whole = isinstance(values, tuple) and len(values) == count and bool(np.isfinite(values).all())
    return np.asarray(values, float) if whole else None


def _square(tags: Tags, number: int) -> NDArray | None:
    """A 3 x 3 matrix that can be inverted, else None."""
    values = _numbers(tags, number, 9)
    matrix = None if values is None else values.reshape(3, 3)
    return matrix if matrix is not None and abs(np.linalg.det(matrix)) > LEAST_DETERMINANT else None


def _calibration(tags: Tags, place: int) -> Calibration | None:
    """AnalogBalance and CameraCalibration, of this one camera, are multiplied in: XYZ -> camera is AB CC CM.

    A ForwardMatrix holds beside them only where they are diagonal.
    """
    matrix, illuminant = _square(tags, COLOR_MATRICES[place]), tags.find(ILLUMINANTS[place])
    if matrix is None:
        return None
    own, balance = _square(tags, CAMERA_CALIBRATIONS[place]), _numbers(tags, ANALOG_BALANCE, 3)
    own = np.eye(3) if own is None else own
    diagonal = np.array_equal(own, np.diag(np.diag(own)))
    own = np.diag(np.ones(3) if balance is None else balance) @ own
    forward = _square(tags, FORWARD_MATRICES[place]) if diagonal else None
    return Calibration(int(illuminant[0]) if isinstance(illuminant, tuple) else 0, own @ matrix, forward)


def _of_dng(tags: Tags) -> tuple[Calibration, ...]:
    """The first calibration and, if both are told, the second."""
    both = [found for place in range(2) if (found := _calibration(tags, place)) is not None]
    return tuple(both) if tags.find(COLOR_MATRICES[0]) else ()


def _of_libraw(path: Path) -> tuple[Calibration, ...]:
    """LibRaw's table of cameras; empty where it does not have this one."""
    import rawpy

    raw = rawpy.RawPy()
    try:
        raw.open_file(str(path))
        matrix = np.array(raw.rgb_xyz_matrix[:3], float)
    finally:
        raw.close()
    return (Calibration(D65, matrix),) if abs(np.linalg.det(matrix)) > LEAST_DETERMINANT else ()


def source_colour(frame: Frame, path: Path | None) -> Colour:
    """The colours of `frame` as its file at `path` tells them: a DNG's own tags, else LibRaw's matrix, else `frame`'s."""
    tags = Tags(()) if path is None else read_tags(path)
    is_dng = tags.find(DNG_VERSION) is not None
    finished = np.array_equal(frame.camera_to_srgb, np.eye(3))  # sRGB: what LibRaw's table says of the camera is no longer true
    calibrations = _of_dng(tags) if is_dng or path is None else () if finished else _of_libraw(path)
    named = tags.find(UNIQUE_CAMERA)
    exposures = [_numbers(tags, number, 1) for number in BASELINE_EXPOSURES]
    return Colour(
        calibrations or (Calibration(UNKNOWN_LIGHT if "colour matrix" in frame.guessed else D65, xyz_to_camera(frame)),),
        named if isinstance(named, str) and named else frame.camera,
        sum(float(value[0]) for value in exposures if value is not None),
        not calibrations and "colour matrix" in frame.guessed,
    )
