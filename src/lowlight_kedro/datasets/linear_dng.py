"""Restored light as linear DNG (Adobe DNG 1.7.1, LinearRaw): raw editors treat it like the camera's own file."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from kedro.io import DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path
from lowlight_kedro.datasets.dng import Colour, neutral_tag, rationals, source_colour, text_tag
from lowlight_kedro.datasets.exif import append_directories, first_tags
from lowlight_kedro.datasets.metadata import Metadata, of_restored
from lowlight_kedro.datasets.tags import BLACK_LEVEL, BLACK_REPEAT, DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, OPCODE_LISTS, WHITE_LEVEL
from lowlight_kedro.evaluation.page import jpeg
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.render import fraction_outside, render, resized, square

logger = logging.getLogger(__name__)

LINEAR_RAW = 34892
LEAST_VERSION = bytes((1, 3, 0, 0))  # of DNG, that a reader must know
HIGHEST = 65535
CODES = 4096  # values that are told apart, as many as dcraw reads: steps of 1 DN in black, 31 in white
PREVIEW, PREVIEW_BYTES = 1600, 1_000_000  # pixels along the longer side of the first image, which is what viewers show; its size at most
BEND = (HIGHEST - (CODES - 1)) / (CODES - 1) ** 2
TILE = 256  # pixels; LibRaw and dcraw read lossless JPEG in tiles, not in strips
JPEG, PREDICTOR = 7, 1  # Compression; the value to the left, the only predictor that darktable's decoder knows
EXPOSURE, NEUTRAL, LINEARIZATION = 50730, 50728, 50712


@dataclass(frozen=True)
class LinearPicture:
    """Restored light and what its file should say of the camera.

    Attributes:
        light: white-balanced linear camera RGB (3, H, W), as the sensor lies; 1 = white of the long exposure.
        frame: the raw it was restored from.
        exposure_ratio: how many times brighter `light` is than the raw; its photosites saturate at that value of camera RGB.
        source: the raw's file, which tells the colour matrices and the metadata; None: only what `frame` tells.
        metadata: what `read_metadata` gives of `source`, where that was read before.
    """

    light: NDArray
    frame: Frame
    exposure_ratio: float
    source: Path | None = None
    metadata: Metadata | None = None

    @property
    def carried(self) -> Metadata:
        """The metadata, with how the picture was made and the maker notes."""
        return of_restored(self.source, self.frame, self.exposure_ratio, self.metadata).of_dng()

    @property
    def gains(self) -> NDArray[np.float32]:
        """White-balance gains (3, 1, 1): camera RGB is `light` / gains."""
        return np.asarray(self.frame.white_balance, np.float32)[:, None, None]


def _codes(dn: NDArray) -> NDArray[np.uint16]:
    """The code whose DN is nearest."""
    return np.rint((np.sqrt(1 + 4 * BEND * np.clip(dn, 0, HIGHEST)) - 1) / (2 * BEND)).astype(np.uint16)


def linearization() -> NDArray[np.uint16]:
    """DN of each code (CODES,), see `Levels`."""
    codes = np.arange(CODES)
    return np.rint(codes + BEND * codes**2.0).astype(np.uint16)


@dataclass(frozen=True)
class Levels:
    """How camera RGB c becomes digital numbers: DN = scale c; `white` is the DN that editors show as white.

    The file holds codes k of them, DN = k + BEND k^2, and the table that says so: steps grow with the light as its noise does, and with
    the square root of it, so that shadows keep every DN and highlights no bits that are noise.

    Black is 0: RawTherapee 5.9 and darktable 4.2 do not subtract BlackLevel from linear files, and a few DN of it tint the shadows.
    """

    white: int
    scale: float

    @classmethod
    def of(cls, highest: float, saturation: float, headroom: float) -> "Levels":
        """The finest scale at which 16 bits hold [0, highest], up to `headroom`.

        White is the highest value, at least 1, or where the photosites saturated if that is lower: above it the colour of a light is
        not known.
        """
        top = float(np.clip(highest, 1, headroom))
        scale = HIGHEST / top
        white = linearization()[_codes(np.float64(scale * min(top, saturation)))]  # one of the codes: what is as bright is no darker
        return cls(int(white), scale)

    @property
    def baseline_exposure(self) -> float:
        """BaselineExposure, EV: with it light of 1 is shown as bright as if white were there."""
        return log2(self.white / self.scale)

    @property
    def highest(self) -> float:
        """Greatest camera RGB that a file can hold."""
        return HIGHEST / self.scale

    def to_codes(self, camera: NDArray) -> NDArray[np.uint16]:
        """The nearest codes; what a file cannot hold goes to its end."""
        return _codes(camera * np.float32(self.scale))


def fitted(picture: LinearPicture, headroom: float) -> Levels:
    """The levels of a picture, see `Levels.of`."""
    highest = max(float(plane.max() / gain) for plane, gain in zip(picture.light, picture.gains.ravel(), strict=True))
    return Levels.of(highest, picture.exposure_ratio, headroom)


def _tile_side(height: int, width: int) -> int:
    """A multiple of 16, as TIFF wants; LibRaw reads tiles that are wider than the picture wrongly."""
    return max(min(TILE, height // 16 * 16, width // 16 * 16), 16)


def _tiles(picture: LinearPicture, levels: Levels, side: int) -> Iterator[bytes]:
    """Codes as lossless JPEG (ITU-T T.81, process 14) of `side` x `side` pixels, edges continued, row by row."""
    from imagecodecs import jpeg8_encode

    height, width = picture.light.shape[1:]
    for top, left in product(range(0, height, side), range(0, width, side)):
        codes = levels.to_codes(picture.light[:, top : top + side, left : left + side] / picture.gains).transpose(1, 2, 0)
        whole = np.pad(codes, ((0, side - codes.shape[0]), (0, side - codes.shape[1]), (0, 0)), mode="edge")
        yield bytes(jpeg8_encode(whole, lossless=True, predictor=PREDICTOR, bitspersample=16, colorspace="rgb", outcolorspace="rgb"))


def _preview(picture: LinearPicture) -> NDArray[np.float32]:
    """What the file looks like, sRGB (3, h, w) as the sensor lies: Orientation turns it like the picture itself."""
    light = resized(square(picture.light, picture.frame.pixel_aspect), PREVIEW, saturation=1.0)
    return render(light, picture.frame.camera_to_srgb)


def file_tags(picture: LinearPicture, metadata: Metadata, colour: Colour, exposure_ev: float) -> list[Any]:
    """Of the first directory, which holds the preview: what is true of the whole file. `exposure_ev` becomes BaselineExposure."""
    needed = max(LEAST_VERSION, picture.frame.lens.version) if picture.frame.lens else LEAST_VERSION
    tags = [
        neutral_tag(picture.frame),
        (50706, "B", 4, max(bytes((1, 4, 0, 0)), needed), True),  # DNGVersion
        (50707, "B", 4, needed, True),  # DNGBackwardVersion
        (EXPOSURE, "2i", 1, (round(exposure_ev * 1_000_000), 1_000_000), True),
        (50935, "2I", 1, (1, 1), True),  # NoiseReductionApplied: all there is to do
    ]
    if picture.source:
        tags.append(text_tag(50827, picture.source.name))  # OriginalRawFileName
    return first_tags(metadata) + colour.tags() + tags


def area_tags(frame: Frame, height: int, width: int) -> list[Any]:
    """Of the directory that holds the picture: which part of it counts, the shape of its pixels, and what the lens did to it."""
    whole = frame.shape == (height, width)
    top, left, rows, columns = frame.default_crop if frame.default_crop and whole else (0, 0, height, width)
    lens = [(OPCODE_LISTS[2], 7, len(frame.lens.opcodes), frame.lens.opcodes, True)] if frame.lens and whole else []
    return [
        *lens,
        (50718, "2I", 2, rationals((frame.pixel_aspect, 1)), True),  # DefaultScale
        (DEFAULT_CROP_ORIGIN, "I", 2, (left, top), True),
        (DEFAULT_CROP_SIZE, "I", 2, (columns, rows), True),
        (50829, "I", 4, (0, 0, height, width), True),  # ActiveArea
    ]


def _level_tags(levels: Levels) -> list[Any]:
    return [
        (LINEARIZATION, "H", CODES, linearization(), True),
        (BLACK_REPEAT, "H", 2, (1, 1), True),
        (BLACK_LEVEL, "H", 3, (0, 0, 0), True),
        (WHITE_LEVEL, "H", 3, (levels.white,) * 3, True),
    ]


def write_preview(writer: tifffile.TiffWriter, picture: LinearPicture, tags: list[Any]) -> None:
    """The first directory of a DNG, which one further follows below."""
    preview = _preview(picture)
    writer.write(
        iter([jpeg(preview, PREVIEW_BYTES, subsampled=False)]), shape=(*preview.shape[1:], 3), dtype=np.uint8,
        photometric="ycbcr", compression=JPEG, subsampling=(1, 1), rowsperstrip=preview.shape[1],
        subfiletype=1, subifds=1, metadata=None, software=False, extratags=tags,
    )  # fmt: skip


def write_linear_dng(path: str | Path, picture: LinearPicture, *, headroom: float) -> Levels:
    """Write atomically, compressed without loss; white balance is divided out again and told in AsShotNeutral, so editors can change it.

    The exposure time is the raw's own. Returns the levels used.

    Raises:
        DatasetError: the file cannot be written.
    """
    levels = fitted(picture, headroom)
    height, width = picture.light.shape[1:]
    side, metadata = _tile_side(height, width), picture.carried
    tags = file_tags(picture, metadata, source_colour(picture.frame, picture.source), levels.baseline_exposure)
    with atomic_path(path) as temporary:
        with tifffile.TiffWriter(temporary, byteorder="<") as writer:
            write_preview(writer, picture, tags)
            writer.write(
                _tiles(picture, levels, side), shape=(height, width, 3), dtype=np.uint16, tile=(side, side), compression=JPEG,
                bitspersample=16, photometric=LINEAR_RAW, planarconfig="contig", subfiletype=0, metadata=None,
                software=False, extratags=_level_tags(levels) + area_tags(picture.frame, height, width),
            )  # fmt: skip
        append_directories(temporary, metadata)
    return levels


def read_linear_dng(path: str | Path) -> NDArray[np.float32]:
    """The light (3, H, W) of a file of ours, to half a DN, within what it holds."""
    with tifffile.TiffFile(path) as file:
        first, raw = file.pages.first, file.pages.first.pages[0]
        white = np.asarray(raw.tags[WHITE_LEVEL].value, float)[:, None, None]
        (exposure, unit), neutral = first.tags[EXPOSURE].value, np.reshape(first.tags[NEUTRAL].value, (3, 2))
        pixels = np.asarray(raw.tags[LINEARIZATION].value)[raw.asarray()].transpose(2, 0, 1)
    gains = (neutral[:, 1] / neutral[:, 0])[:, None, None]
    return (pixels * (2 ** (exposure / unit) * gains / white)).astype(np.float32)


class LinearDngDataset(LocalDataset[LinearPicture, NDArray]):
    """A `LinearPicture` as linear DNG; loading gives its light.

    Args:
        filepath: the file.
        headroom: light kept, in camera RGB where 1 is the white of the long exposure; beyond it is clipped, with a warning.
    """

    def __init__(self, *, filepath: str, headroom: float, metadata: dict | None = None) -> None:
        if headroom < 1:
            raise DatasetError(f"headroom must be at least 1, got headroom={headroom}")
        super().__init__(filepath=filepath, metadata=metadata)
        self._headroom = headroom

    def load(self) -> NDArray[np.float32]:
        """See `read_linear_dng`."""
        return read_linear_dng(self._filepath)

    def save(self, data: LinearPicture) -> None:
        """Write atomically; say what does not fit."""
        levels = write_linear_dng(self._filepath, data, headroom=self._headroom)
        above = fraction_outside(data.light, high=(levels.highest + 0.5 / levels.scale) * data.gains)["above"]
        if above:
            logger.warning("%s: of the values %.2g lie above what it holds (headroom)", self._filepath, above)

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"headroom": self._headroom}
