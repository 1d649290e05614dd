"""Camera raws as Kedro datasets, decoded by LibRaw."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.sensor.cfa import from_colours
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.render import camera_to_srgb

RAW_SUFFIXES = (".arw", ".raf", ".dng", ".nef", ".cr2", ".cr3", ".orf", ".rw2", ".pef", ".srw", ".kdc", ".raw")
NOT_MOSAIC = "it has no mosaic (monochrome, sRAW or linear DNG); only Bayer and X-Trans raws can be used"


class RawReadError(ValueError):
    """A raw file that cannot be used, with its name and the reason."""


@contextmanager
def _opened(path: Path, *, unpack: bool) -> Iterator[Any]:
    """A rawpy object of `path`; LibRaw's and our own complaints become `RawReadError`."""
    import rawpy

    try:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        raw = rawpy.RawPy()
        try:
            raw.open_file(str(path))
            if unpack:
                raw.unpack()
            yield raw
        finally:
            raw.close()
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise RawReadError(f"{path}: LibRaw cannot read it ({reason}); is it a whole raw file?") from error
    except (ValueError, OSError) as error:
        raise RawReadError(f"{path}: {error}") from error


def _positive(value: float) -> float:
    """A tag's value, which LibRaw keeps in single precision; nan where it is missing or 0."""
    return float(f"{value:.6g}") if value and value > 0 else float("nan")


def _camera_name(path: Path) -> str:
    """Maker and model from the EXIF header; `"unknown camera"` where there is none."""
    import exifread

    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    with path.open("rb") as file:
        try:
            tags = exifread.process_file(file, details=False, extract_thumbnail=False)
        except Exception:  # noqa: BLE001 - a third-party parser on arbitrary bytes; the name is optional
            return "unknown camera"
    words = [str(tags[key]).strip() for key in ("Image Make", "Image Model") if key in tags]
    return " ".join(words) or "unknown camera"


def _black_pattern(raw: Any, period: int) -> np.ndarray:
    """Black level per site over one CFA period; LibRaw keeps it per colour number."""
    colours = raw.raw_colors_visible[:period, :period]
    return np.asarray(raw.black_level_per_channel, np.float32)[colours]


def read_header(path: Path) -> dict[str, Any]:
    """What a raw says of itself, without decoding: exposure_s, iso, camera, height, width.

    Raises:
        RawReadError: LibRaw cannot open the file.
    """
    with _opened(path, unpack=False) as raw:
        return {
            "exposure_s": _positive(raw.other.shutter_speed),
            "iso": _positive(raw.other.iso_speed),
            "height": raw.sizes.height,
            "width": raw.sizes.width,
            "camera": _camera_name(path),
        }


def read_frame(path: Path) -> Frame:
    """Decode the visible area of a Bayer or X-Trans raw.

    Raises:
        RawReadError: LibRaw cannot decode the file, or it holds no colour mosaic.
    """
    with _opened(path, unpack=True) as raw:
        if raw.raw_image_visible is None or raw.raw_image_visible.ndim != 2 or raw.num_colors != 3:
            raise ValueError(NOT_MOSAIC)
        cfa = from_colours(raw.raw_colors_visible[:36, :36])
        balance = np.asarray(raw.camera_whitebalance[:3], float)
        if not np.all(np.isfinite(balance) & (balance > 0)):
            balance = np.asarray(raw.daylight_whitebalance[:3], float)
        if not np.all(np.isfinite(balance) & (balance > 0)):
            balance = np.ones(3)
        return Frame(
            mosaic_dn=raw.raw_image_visible.copy(),
            cfa=cfa,
            black_level=_black_pattern(raw, len(cfa)),
            white_level=float(raw.white_level),
            exposure_s=_positive(raw.other.shutter_speed),
            iso=_positive(raw.other.iso_speed),
            camera=_camera_name(path),
            white_balance=tuple((balance / balance[1]).tolist()),
            camera_to_srgb=camera_to_srgb(raw.rgb_xyz_matrix),
        )


@dataclass(frozen=True)
class RawFile:
    """One raw, not yet opened: call it for the `Frame`, `header()` for what it says of itself."""

    path: Path

    def __call__(self) -> Frame:
        """See `read_frame`."""
        return read_frame(self.path)

    def header(self) -> dict[str, Any]:
        """See `read_header`."""
        return read_header(self.path)

    def content_hash(self) -> str:
        """Of all bytes of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class RawFolderDataset(AbstractDataset[None, dict[str, RawFile]]):
    """All raws below a folder, lazily: `{relative path without suffix: RawFile}`, sorted by name.

    Args:
        filepath: the folder; searched recursively, links followed.
        suffixes: file endings that count as raw, case ignored.
    """

    def __init__(self, *, filepath: str, suffixes: list[str] | None = None, metadata: dict | None = None) -> None:
        self._folder = Path(filepath)
        self._suffixes = tuple(suffix.lower() for suffix in suffixes or RAW_SUFFIXES)
        self.metadata = metadata

    def load(self) -> dict[str, RawFile]:
        """List the folder.

        Raises:
            DatasetError: the folder is missing or holds no raw, or two raws differ only in their ending.
        """
        paths = sorted(p for p in self._folder.rglob("*") if p.suffix.lower() in self._suffixes and p.is_file())
        paths = [path for path in paths if not path.name.startswith(".")]
        if not paths:
            state = "holds no raw" if self._folder.is_dir() else "does not exist"
            raise DatasetError(
                f"the raw folder {self._folder} {state}; put files ending in {', '.join(self._suffixes)} there, "
                "or point `raw` in conf/<env>/globals.yml at your folder"
            )
        raws: dict[str, RawFile] = {}
        for path in paths:
            name = path.relative_to(self._folder).with_suffix("").as_posix()
            if name in raws:
                raise DatasetError(f"{raws[name].path} and {path} would have one name, {name}; rename or move one of them")
            raws[name] = RawFile(path)
        return raws

    def save(self, data: None) -> None:
        """Raws are never written."""
        raise DatasetError("a raw folder is read-only")

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder), "suffixes": self._suffixes}
