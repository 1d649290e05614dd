"""One camera raw to a `Frame`, by LibRaw and the file's own tags; whatever is wrong with it becomes `RawReadError`."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lowlight_kedro.datasets.black import black_level, colours
from lowlight_kedro.datasets.tags import EXPOSURE_TIME, FOCAL_LENGTH, NOISE_PROFILE, Tags, read_tags
from lowlight_kedro.sensor.cfa import from_colours
from lowlight_kedro.sensor.frame import Frame, checked
from lowlight_kedro.sensor.levels import measured_white
from lowlight_kedro.sensor.render import camera_to_srgb

NOT_MOSAIC = "it has no mosaic (monochrome, sRAW or linear DNG); only Bayer and X-Trans raws can be used"
MAX_PHOTOSITES = 1 << 29  # five times the largest sensor sold
PHOTOSITES_PER_BYTE = 64  # a lossless code spends at least 1/8 bit on a photosite
LIBRAW_LINES = ("Unexpected end of file", "data corrupted at")
BALANCE_LIMITS = (0.05, 20.0)  # of red and blue over green; lamps lie within 0.3 and 5
_stderr = threading.Lock()


class RawReadError(ValueError):
    """A raw file that cannot be used, with its name and the reason."""


@contextmanager
def _without_libraws_lines() -> Iterator[None]:
    """LibRaw writes its complaints to the process's stderr besides raising them: drop these lines, pass on all others."""
    with _stderr, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not any(words in line.decode(errors="replace") for words in LIBRAW_LINES):
                    os.write(2, line)


def _refuse_absurd(raw: Any, path: Path) -> None:
    """Before memory is taken: sizes that no sensor has, or that the file cannot hold.

    Raises:
        ValueError: as said.
    """
    sizes, held = raw.sizes, path.stat().st_size
    photosites = sizes.raw_height * sizes.raw_width
    if photosites > min(MAX_PHOTOSITES, PHOTOSITES_PER_BYTE * held):
        raise ValueError(f"it claims {sizes.raw_height} x {sizes.raw_width} photosites in {held} bytes, which cannot be")
    inside = sizes.top_margin + sizes.height <= sizes.raw_height and sizes.left_margin + sizes.width <= sizes.raw_width
    if not inside or min(sizes.height, sizes.width) < 1:
        raise ValueError(f"its visible area {sizes.height} x {sizes.width} does not lie inside {sizes.raw_height} x {sizes.raw_width}")


@contextmanager
def _opened(path: Path, *, unpack: bool) -> Iterator[Any]:
    """A rawpy object of `path`; LibRaw's and our own complaints become `RawReadError`."""
    import rawpy

    try:
        if not path.is_file():
            raise ValueError("it is no file" if path.exists() else "there is no such file")
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        raw = rawpy.RawPy()
        try:
            with _without_libraws_lines():
                raw.open_file(str(path))
                _refuse_absurd(raw, path)
                if unpack:
                    raw.unpack()
            yield raw
        finally:
            raw.close()
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise RawReadError(f"{path}: LibRaw cannot read it ({reason}); is it a whole raw file?") from error
    except OSError as error:
        raise RawReadError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise RawReadError(f"{path}: {error}") from error


def _or_else(value: float, decoded: float) -> float:
    """A tag's value, else LibRaw's (kept in single precision there); nan where both are missing or 0."""
    if value > 0:
        return value
    return float(f"{decoded:.6g}") if 0 < decoded < float("inf") else float("nan")


def _shot(raw: Any, tags: Tags) -> dict[str, float]:
    """Exposure time and ISO. LibRaw, which knows makers' notes too, tells only after decoding, so is asked last."""
    exposure, iso = tags.number(EXPOSURE_TIME), tags.iso
    if exposure > 0 and iso > 0:
        return {"exposure_s": exposure, "iso": iso}
    with _without_libraws_lines():
        decoded = raw.other
    return {"exposure_s": _or_else(exposure, decoded.shutter_speed), "iso": _or_else(iso, decoded.iso_speed)}


def _orientation(raw: Any) -> int:
    return raw.sizes.flip if 0 <= raw.sizes.flip <= 7 else 0


def read_header(path: Path) -> dict[str, Any]:
    """What a raw says of itself, as a rule without decoding.

    Returns:
        exposure_s, iso, focal_mm (nan where not told), height, width of the visible area, camera, taken_at (ISO 8601
        or None), orientation (as `Frame.orientation`).

    Raises:
        RawReadError: LibRaw cannot open the file.
    """
    with _opened(path, unpack=False) as raw:
        tags = read_tags(path)
        return _shot(raw, tags) | {
            "height": raw.sizes.height,
            "width": raw.sizes.width,
            "camera": tags.camera,
            "taken_at": tags.taken_at,
            "orientation": _orientation(raw),
            "focal_mm": tags.number(FOCAL_LENGTH),
        }


def _white_balance(raw: Any) -> tuple[float, float, float]:
    """Multipliers of R, G, B, green = 1: as shot, else daylight, else 1."""
    for multipliers in (raw.camera_whitebalance, raw.daylight_whitebalance):
        red, green, blue = (float(value) for value in multipliers[:3])
        if green > 0 and all(BALANCE_LIMITS[0] <= value / green <= BALANCE_LIMITS[1] for value in (red, blue)):
            return red / green, 1.0, blue / green
    return 1.0, 1.0, 1.0


def _noise_profile(tags: Tags, scale: float) -> tuple[tuple[float, float], ...] | None:
    """DNG NoiseProfile, one (slope, offset) for all or for each of R, G, B; variance = slope * signal + offset.

    Args:
        scale: white - black by the tags over white - black as used: the signal's unit changes with it.
    """
    values = tags.find(NOISE_PROFILE) or ()
    if len(values) not in (2, 6) or not all(np.isfinite(values)) or min(values) < 0:
        return None
    return tuple((slope * scale, offset * scale**2) for slope, offset in zip(values[::2], values[1::2], strict=True))


def read_frame(path: Path, white: Literal["measured", "tag"] = "measured") -> Frame:
    """Decode the visible area of a Bayer or X-Trans raw.

    Args:
        path: the file.
        white: whether saturation seen in the photosites overrules the file's white level (`measured_white`).

    Raises:
        RawReadError: LibRaw cannot decode the file, it holds no colour mosaic, or what it tells contradicts itself.
    """
    with _opened(path, unpack=True) as raw:
        if raw.raw_image_visible.ndim != 2 or raw.num_colors != 3:
            raise ValueError(NOT_MOSAIC)
        tags, mosaic = read_tags(path), raw.raw_image_visible.copy()
        cfa = from_colours(colours(raw, 12))
        black, tag = black_level(raw, tags, len(cfa)), float(raw.white_level)
        level, white_from = measured_white(mosaic, cfa, tag) if white == "measured" else (tag, "tag")
        return checked(Frame(
            mosaic_dn=mosaic, cfa=cfa, black_level=black, white_level=level, white_from=white_from, camera=tags.camera,
            white_balance=_white_balance(raw), camera_to_srgb=camera_to_srgb(raw.rgb_xyz_matrix), **_shot(raw, tags),
            noise_profile=_noise_profile(tags, (tag - float(black.mean())) / (level - float(black.mean()) or 1)),
            orientation=_orientation(raw),
        ))  # fmt: skip
