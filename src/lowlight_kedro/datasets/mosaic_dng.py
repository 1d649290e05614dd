"""Restored light as the mosaic that the camera would have recorded without noise: a DNG for the editor's own demosaicer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path
from lowlight_kedro.datasets.decoding import read_frame
from lowlight_kedro.datasets.dng import CFA_PHOTOMETRIC, source_colour
from lowlight_kedro.datasets.exif import append_directories
from lowlight_kedro.datasets.linear_dng import HIGHEST, LinearPicture, area_tags, file_tags, write_preview
from lowlight_kedro.datasets.tags import BLACK_LEVEL, BLACK_REPEAT, WHITE_LEVEL
from lowlight_kedro.sensor.cfa import sample
from lowlight_kedro.sensor.frame import Frame, normalise


def mosaic_levels(frame: Frame) -> tuple[int, int, int]:
    """Black and white of the file, and their common factor: the raw's own levels, times the greatest whole number that 16 bits hold."""
    factor = max(int(HIGHEST // frame.white_level), 1)
    return round(float(frame.black_level.mean())) * factor, round(frame.white_level) * factor, factor


def mosaic_dn(picture: LinearPicture) -> NDArray[np.uint16]:
    """What the photosites would have recorded of the light at the raw's own exposure, (H, W), in `mosaic_levels`.

    Negative values reach down to 0, below the black level; what saturates is at white or above.
    """
    black, white, _ = mosaic_levels(picture.frame)
    camera = picture.light / (picture.gains * np.float32(picture.exposure_ratio))
    dn = black + (white - black) * sample(camera, picture.frame.cfa)
    return np.clip(np.rint(dn), 0, HIGHEST).astype(np.uint16)


def write_mosaic_dng(path: str | Path, picture: LinearPicture) -> None:
    """Write atomically, uncompressed, two bytes a photosite: filters, colours, crop and metadata of the raw, a preview of the light.

    Raises:
        DatasetError: the file cannot be written.
    """
    frame, metadata, colour = picture.frame, picture.carried, source_colour(picture.frame, picture.source)
    (black, white, _), period, (height, width) = mosaic_levels(frame), len(frame.cfa), picture.light.shape[1:]
    raw_tags: list[Any] = [
        (33421, "H", 2, (period, period), True),  # CFARepeatPatternDim
        (33422, "B", period * period, bytes(np.asarray(frame.cfa, np.uint8)), True),  # CFAPattern
        (50710, "B", 3, bytes((0, 1, 2)), True),  # CFAPlaneColor
        (50711, "H", 1, 1, True),  # CFALayout: rectangular
        (BLACK_REPEAT, "H", 2, (1, 1), True),
        (BLACK_LEVEL, "H", 1, black, True),
        (WHITE_LEVEL, "H", 1, white, True),
        *area_tags(frame, height, width),
    ]
    tags = file_tags(picture, metadata, replace(colour, baseline_exposure=0.0), colour.baseline_exposure)
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary, byteorder="<") as writer:
            write_preview(writer, picture, tags)
            writer.write(
                mosaic_dn(picture), photometric=CFA_PHOTOMETRIC, subfiletype=0, metadata=None, software=False, rowsperstrip=height,
                extratags=raw_tags,
            )  # fmt: skip
        append_directories(temporary, metadata)


class MosaicDngDataset(LocalDataset[LinearPicture, NDArray]):
    """A `LinearPicture` as the mosaic behind it; loading gives its signal (H, W), 0 = black, 1 = white of the raw.

    Args:
        filepath: the file.
    """

    def load(self) -> NDArray[np.float32]:
        """Read it back, by LibRaw."""
        return normalise(read_frame(self._filepath, "tag"))

    def save(self, data: LinearPicture) -> None:
        """See `write_mosaic_dng`."""
        write_mosaic_dng(self._filepath, data)
