"""Write a mosaic as DNG (Adobe DNG specification 1.7.1), uncompressed, so that any raw decoder reads it."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import tifffile

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65

CFA_PHOTOMETRIC = 32803
EXIF_POINTER = 34665
PLACEHOLDER = 34664  # tifffile refuses to write the EXIF pointer itself; same place in the sorted directory


def _rational(value: float) -> tuple[int, int]:
    fraction = Fraction(value).limit_denominator(1_000_000)
    return fraction.numerator, fraction.denominator


def _srational(values: np.ndarray) -> list[int]:
    return [part for value in values.ravel() for part in (round(float(value) * 10_000), 10_000)]


def _append_exif(path: Path, frame: Frame) -> None:
    """Add the EXIF directory (ExposureTime, ISOSpeedRatings), which tifffile does not write."""
    with tifffile.TiffFile(path) as file:
        entry = file.pages.first.tags[PLACEHOLDER].offset
    start = path.stat().st_size + path.stat().st_size % 2
    exposure_at = start + 2 + 2 * 12 + 4
    directory = struct.pack("<H", 2)
    directory += struct.pack("<HHII", 33434, 5, 1, exposure_at)
    directory += struct.pack("<HHIHH", 34855, 3, 1, round(frame.iso), 0)
    directory += struct.pack("<III", 0, *_rational(frame.exposure_s))
    with path.open("rb+") as file:
        file.seek(start)
        file.write(directory)
        file.seek(entry)
        file.write(struct.pack("<HHII", EXIF_POINTER, 4, 1, start))


def write_dng(path: str | Path, frame: Frame) -> None:
    """Write `frame` atomically; levels, CFA, exposure, ISO, camera, neutral and colour matrix are tags.

    The colour matrix is the one with which white-balanced camera RGB is linear sRGB where
    `frame.camera_to_srgb` is the identity; white is D65 (CalibrationIlluminant1 = 21).
    """
    period = len(frame.cfa)
    neutral = [1 / value for value in frame.white_balance]
    xyz_to_camera = np.diag(neutral) @ np.linalg.inv(frame.camera_to_srgb.astype(float)) @ SRGB_FROM_XYZ_D65
    tags = [
        (271, "s", 0, frame.camera.split(" ")[0], True),
        (272, "s", 0, frame.camera.split(" ", 1)[-1], True),
        (33421, "H", 2, (period, period), True),  # CFARepeatPatternDim
        (33422, "B", period * period, bytes(np.asarray(frame.cfa, np.uint8)), True),  # CFAPattern
        (PLACEHOLDER, "I", 1, 0, True),  # set by _append_exif
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50708, "s", 0, frame.camera, True),  # UniqueCameraModel
        (50713, "H", 2, (period, period), True),  # BlackLevelRepeatDim
        (50714, "H", period * period, tuple(int(value) for value in frame.black_level.ravel()), True),
        (50717, "H", 1, round(frame.white_level), True),  # WhiteLevel
        (50721, "2i", 9, _srational(xyz_to_camera), True),  # ColorMatrix1
        (50728, "2I", 3, [part for value in neutral for part in _rational(value)], True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary, byteorder="<") as writer:
            writer.write(frame.mosaic_dn, photometric=CFA_PHOTOMETRIC, extratags=tags, software=False, metadata=None)
        _append_exif(temporary, frame)
