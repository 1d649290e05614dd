"""What is made of a restored frame for its files: only what is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.datasets.exif import left_out_of_jpeg
from lowlight_kedro.datasets.image import Picture, linear_profile
from lowlight_kedro.datasets.linear_dng import LinearPicture
from lowlight_kedro.datasets.metadata import Metadata, of_restored
from lowlight_kedro.evaluation.page import Page
from lowlight_kedro.evaluation.pictures import heat, heat_most, most_detailed
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.preprocessing.options import DemosaicerOptions
from lowlight_kedro.restoration.estimates import Estimate
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.sensor.cfa import UNFILTERED
from lowlight_kedro.sensor.frame import Frame, balanced
from lowlight_kedro.sensor.render import (
    block_means,
    display_exposure,
    faded,
    fraction_outside,
    oriented,
    render,
    resized,
    square,
    square_shape,
)

Box = tuple[slice, slice, slice]


def scaled_light(signal: NDArray, frame: Frame, ratio: float, demosaicer: DemosaicerOptions) -> NDArray[np.float32]:
    """White-balanced linear RGB (3, H, W) of `ratio` times the signal, demosaiced, noise and all."""
    light = balanced(signal * np.float32(ratio), frame.cfa, frame.white_balance, frame.shading)
    return demosaicer.chosen(frame.cfa)(light, frame.cfa)


def detailed_box(light: NDArray, shown_side: int, side: int) -> Box | None:
    """Where `light` (3, H, W) holds most detail, a square of `side` pixels or less; None where all its pixels are shown.

    `shown_side` are the pixels along the longer side of the picture that is shown.
    """
    if max(light.shape[1:]) <= shown_side:
        return None
    step = -(-max(light.shape[1:]) // shown_side)
    places = most_detailed(np.sqrt(np.clip(block_means(light, step), 0, 1)), max(side // step, 2))
    top, left = (max(min(step * place, length - side), 0) for place, length in zip(places, light.shape[1:], strict=True))
    return slice(None), slice(top, top + side), slice(left, left + side)


# Of each part: bytes for a pixel, and for a whole file, that it takes at most. What compresses is counted as noise that does not.
MOST_BYTES = {
    "linear": (6.2, 0), "dng": (4.9, 1e6), "cfa": (2.0, 1e6), "srgb": (6.2, 0), "preview": (2.0, 0), "before": (2.5, 0), "std": (6.2, 0),
    "std_preview": (0.0, 2e6), "defects": (0.5, 1e4), "page": (0.0, 4e6),
}  # fmt: skip


def most_bytes(parts: Sequence[str], height: float, width: float) -> int:
    """What the files of a frame of this size take at most, by `MOST_BYTES`."""
    known = [MOST_BYTES[part] for part in parts]
    return round(sum(per_pixel * height * width + whole for per_pixel, whole in known))


def shape_shown(shape: tuple[int, int], aspect: float, orientation: int) -> tuple[int, int]:
    """Height and width of a frame of `shape` as it is shown: square pixels, upright."""
    height, width = square_shape(shape, aspect)
    return (width, height) if orientation & 4 else (height, width)


def defect_table(exposure: Exposure, listed: NDArray | None) -> pd.DataFrame:
    """Where the photosites lie that did not count, as the sensor lies: row and column from 0, colour, signal (1 = white), who said so.

    `told` are those (H, W) that the file calls defective.
    """
    none = np.zeros(exposure.signal.shape, bool)
    row, column = np.nonzero(none if exposure.defects is None else exposure.defects)
    by_file = (none if listed is None else listed)[row, column]
    period, colours = len(exposure.cfa), np.asarray(exposure.cfa)
    return pd.DataFrame({
        "row": row, "column": column, "colour": np.array(list("RGB"))[colours[row % period, column % period]],
        "signal": exposure.signal[row, column].round(5), "known_from": np.where(by_file, "file", "frame"),
    })  # fmt: skip


@dataclass(frozen=True)
class Outputs:
    """A restored frame; each picture is made when it is asked for.

    `linear` is white-balanced linear camera RGB, `std` its standard deviation, both as the sensor lies; what is shown is upright.

    Attributes:
        name: of the frame.
        result: the restored light.
        exposure: what it was restored from.
        frame: the raw.
        source: its file; None where there is none.
        options: of the run.
    """

    name: str
    result: Estimate
    exposure: Exposure
    frame: Frame
    source: Path | None
    options: InferenceOptions

    @cached_property
    def light(self) -> NDArray:
        """The restored light, its colour faded where blown sites leave it unknown."""
        return faded(self.result.light, self.exposure.signal, self.frame.cfa)

    @property
    def saturation(self) -> float:
        """The light at which the first channel saturates."""
        return self.exposure.exposure_ratio * min(self.frame.white_balance)

    @cached_property
    def _display_exposure(self) -> float:
        return display_exposure(self.light, self.options.display, self.saturation)

    @property
    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "display_exposure": self._display_exposure, "clipped_in_linear": fraction_outside(self.light),
            "metadata_lost": self._lost, "colour_guessed": list(self.frame.guessed),
            "lens_corrections": list(self.frame.lens.names) if self.frame.lens else [],
            "shading_most": None if self.frame.shading is None else float(self.frame.shading.max()),
        }  # fmt: skip

    def _picture(self, light: NDArray, side: int | None = None) -> NDArray:
        """What is shown of light, upright, of square pixels, its longer side of `side` pixels at most."""
        whole = square(light, self.frame.pixel_aspect)
        small = whole if side is None else resized(whole, side, self.saturation)
        shown = render(
            small, self.frame.camera_to_srgb, exposure=self._display_exposure, knee=self.options.display.knee, saturation=self.saturation
        )
        return oriented(shown, self.frame.orientation)

    @cached_property
    def _metadata(self) -> Metadata:
        """Of the raw, with how the picture was made."""
        return of_restored(self.source, self.frame, self.exposure.exposure_ratio)

    @property
    def _lost(self) -> list[str]:
        """What of the raw's metadata is not in the files."""
        pictures = {"preview", "before"} & set(self.options.files)
        return [*self._metadata.lost, *(left_out_of_jpeg(self._metadata) if pictures else [])]

    def _shown(self, light: NDArray, side: int | None = None) -> Picture:
        """A picture in sRGB with the metadata of the raw."""
        return Picture(self._picture(light, side), self._metadata.upright())

    @cached_property
    def _scaled(self) -> NDArray:
        """The input, only scaled, white-balanced and demosaiced."""
        return scaled_light(self.exposure.signal, self.frame, self.exposure.exposure_ratio, self.options.demosaicer)

    def _page(self, record: dict[str, Any]) -> Page:
        side, light = self.options.page.picture_side, self.light
        pair = self._picture(self._scaled, side), self._picture(light, side)
        whole = self.options.display.preview_side is None and {"preview", "before"} <= set(self.options.files)
        box = None if whole else detailed_box(light, side, self.options.page.detail_side)
        detail = None if box is None else (self._picture(self._scaled[box]), self._picture(light[box]))
        std = self.result.std
        drawn = None if std is None else (oriented(heat(std), self.frame.orientation), heat_most(std))
        height, width = shape_shown((light.shape[1], light.shape[2]), self.frame.pixel_aspect, self.frame.orientation)
        return Page(self.name, (height, width), pair, detail, drawn, record, (*self.options.files, "record"), whole)

    def parts(self, record: dict[str, Any]) -> dict[str, Any]:
        """{part: content} of what `inference.files` asks for, but what is not known; `record` is what the page tells."""
        result, side, ratio = self.result, self.options.display.preview_side, self.exposure.exposure_ratio
        linear = LinearPicture(self.light, self.frame, ratio, self.source, self._metadata)
        mosaic = LinearPicture(result.light, self.frame, ratio, self.source, self._metadata)
        known: dict[str, Callable[[], Any]] = {
            "linear": lambda: Picture(self.light, self._metadata, linear_profile(self.frame.camera_to_srgb)),
            "dng": lambda: linear,
            "srgb": lambda: self._shown(self.light),
            "preview": lambda: self._shown(self.light, side),
            "before": lambda: self._shown(self._scaled, side),
            "page": lambda: self._page(record),
        }
        if self.frame.cfa != UNFILTERED:
            known |= {"cfa": lambda: mosaic, "defects": lambda: defect_table(self.exposure, self.frame.defects)}
        if result.std is not None:
            std = result.std
            known |= {"std": lambda: std, "std_preview": lambda: oriented(heat(std), self.frame.orientation)}
        return {part: known[part]() for part in self.options.files if part in known}
