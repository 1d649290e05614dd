"""What a raw says of its colours, in the terms of DNG 1.7.1, so that another file can say the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.dng import matrix_part, text_tag, xyz_to_camera
from lowlight_kedro.datasets.tags import (
    ANALOG_BALANCE,
    BASELINE_EXPOSURES,
    CAMERA_CALIBRATIONS,
    COLOR_MATRICES,
    DNG_VERSION,
    FORWARD_MATRICES,
    ILLUMINANTS,
    UNIQUE_CAMERA,
    Tags,
    read_tags,
)
from lowlight_kedro.sensor.frame import Frame

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
