"""One camera raw to a `Frame`, by LibRaw and the file's own tags; whatever is wrong with it becomes `RawReadError`."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.black import FLOAT, black_level, black_of_planes, colours, masked_areas, one_white, visible_area
from lowlight_kedro.datasets.containers import finished_kind
from lowlight_kedro.datasets.opcodes import Area, heard_of
from lowlight_kedro.datasets.tags import (
    ACTIVE_AREA,
    COLOR_MATRICES,
    COMPRESSION,
    DEFAULT_CROP_ORIGIN,
    DEFAULT_CROP_SIZE,
    DNG_VERSION,
    EXPOSURE_TIME,
    FOCAL_LENGTH,
    NOISE_PROFILE,
    NOISE_REDUCED,
    SAMPLE_FORMAT,
    STRIPS,
    TILES,
    Tags,
    read_tags,
)
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa, from_colours
from lowlight_kedro.sensor.frame import LEAST_SIDE, Frame, checked, with_white
from lowlight_kedro.sensor.levels import WhiteFrom, measured_white
from lowlight_kedro.sensor.masked import with_masked
from lowlight_kedro.sensor.render import camera_to_srgb

NO_COLOUR = "it is monochrome or has more than three colours; Bayer, X-Trans and three values a pixel can be used"
VC5 = 9  # Compression of GPR
NOT_DECODED = {50002: "JPEG XL", 52546: "JPEG XL", 8: "deflate of whole numbers", 32946: "deflate of whole numbers", 5: "LZW"}  # in DNG
MAX_PHOTOSITES = 1 << 29  # five times the largest sensor sold
PHOTOSITES_PER_BYTE = 64  # a lossless code spends at least 1/8 bit on a photosite
LIBRAW_LINES = ("Unexpected end of file", "data corrupted at")
BLANK = (16, 128)  # rows and columns in the last corner, 0 only where decoding stopped: a sensor has noise
BALANCE_LIMITS = (0.05, 20.0)  # of red and blue over green; lamps lie within 0.3 and 5
BALANCED = ("nikon", "sony")  # makers whose small raws LibRaw gives balanced as shot (its as_shot_wb_applied, which rawpy does not show)
ASPECT_LIMITS = (0.25, 4.0)  # of photosites; the cameras with such sensors lie within 0.5 and 2
_stderr = threading.Lock()


class RawReadError(ValueError):
    """A raw file that cannot be used, with its name and the reason."""


@contextmanager
def without_libraws_lines() -> Iterator[None]:
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


def _refuse_absurd(raw: Any, held: int) -> None:
    """Before memory is taken: sizes that no sensor has, or that the file cannot hold.

    Raises:
        ValueError: as said.
    """
    sizes = raw.sizes
    photosites = sizes.raw_height * sizes.raw_width
    if photosites > min(MAX_PHOTOSITES, PHOTOSITES_PER_BYTE * held):
        raise ValueError(f"it claims {sizes.raw_height} x {sizes.raw_width} photosites in {held} bytes, which cannot be")
    inside = sizes.top_margin + sizes.height <= sizes.raw_height and sizes.left_margin + sizes.width <= sizes.raw_width
    if not inside or min(sizes.height, sizes.width) < 1:
        raise ValueError(f"its visible area {sizes.height} x {sizes.width} does not lie inside {sizes.raw_height} x {sizes.raw_width}")


def _named(path: Path) -> str:
    """The path as text that can be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "replace")


def _refuse_by_name(path: Path, tags: Tags) -> None:
    """What LibRaw cannot decode, as the directories tell: before anything is decoded.

    Raises:
        ValueError: as said, with what can be done.
    """
    (code,) = tags.picture.get(COMPRESSION, (0,))[:1] or (0,)
    if path.suffix.lower() == ".gpr" or code == VC5:
        raise ValueError("it is a GoPro raw (GPR, VC-5), which LibRaw does not decode; convert it to DNG first")
    whole = tags.picture.get(SAMPLE_FORMAT, (1,))[:1] != (FLOAT,)
    if tags.find(DNG_VERSION) is not None and whole and code in NOT_DECODED:
        raise ValueError(f"its image is compressed by {NOT_DECODED[code]}, which LibRaw does not decode; write it as lossless JPEG first")


def _refuse_torn(raw: Any, tags: Tags, held: int) -> None:
    """LibRaw leaves tiles of a DNG that lie beyond the end of the file black, without a word.

    Raises:
        ValueError: part of the image lies beyond the end.
    """
    image = tags.image(raw.sizes.raw_height, raw.sizes.raw_width) if tags.find(DNG_VERSION) else None
    for offsets, counts in (STRIPS, TILES):
        if image and offsets in image and counts in image:
            end = max(map(sum, zip(image[offsets], image[counts], strict=False)))
            if end > held:
                raise ValueError(f"its image ends at byte {end:g}, the file at {held}; it was not copied whole")


def _refuse_unfinished(raw: Any) -> None:
    """At a tile that it cannot decode LibRaw may stop without a word; what follows is then 0.

    Raises:
        ValueError: the last corner is blank.
    """
    if not raw.raw_image_visible[-BLANK[0] :, -BLANK[1] :].any():
        raise ValueError(f"its last {BLANK[0]} x {BLANK[1]} photosites are 0, without any noise: its data are damaged before")


@contextmanager
def _opened(path: Path, *, unpack: bool) -> Iterator[tuple[Any, Tags]]:
    """A rawpy object of `path` and the file's tags; LibRaw's and our own complaints become `RawReadError`."""
    import rawpy

    try:
        if not path.is_file():
            raise ValueError("it is no file" if path.exists() else "there is no such file")
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        raw = rawpy.RawPy()
        try:
            with without_libraws_lines():
                tags, held = read_tags(path), path.stat().st_size
                _refuse_by_name(path, tags)
                raw.open_file(str(path))
                if raw.num_colors != 3:
                    raise ValueError(NO_COLOUR)
                _refuse_torn(raw, tags, held)
                _refuse_absurd(raw, held)
                if unpack:
                    raw.unpack()
            yield raw, tags
        finally:
            raw.close()
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        kind = finished_kind(path)
        asked = f"it is a {kind}, no raw; is the camera's own file there too?" if kind else "is it a whole raw file?"
        raise RawReadError(f"{_named(path)}: LibRaw cannot read it ({reason}); {asked}") from error
    except OSError as error:
        raise RawReadError(f"{_named(path)}: {error.strerror or error}") from error
    except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
        raise RawReadError(f"{_named(path)}: {error}") from error


def _or_else(value: float, decoded: float) -> float:
    """A tag's value, else LibRaw's (kept in single precision there); nan where both are missing or 0."""
    if value > 0:
        return value
    return float(f"{decoded:.6g}") if 0 < decoded < float("inf") else float("nan")


def _shot(raw: Any, tags: Tags) -> tuple[float, float]:
    """Exposure time and ISO. LibRaw, which knows makers' notes too, tells only after decoding, so is asked last."""
    exposure, iso = tags.number(EXPOSURE_TIME), tags.iso
    if exposure > 0 and iso > 0:
        return exposure, iso
    with without_libraws_lines():
        decoded = raw.other
    return _or_else(exposure, decoded.shutter_speed), _or_else(iso, decoded.iso_speed)


def _orientation(raw: Any) -> int:
    return raw.sizes.flip if 0 <= raw.sizes.flip <= 7 else 0


def _pixel_aspect(raw: Any) -> float:
    """Width of a photosite over its height."""
    aspect = float(raw.sizes.pixel_aspect)
    return aspect if ASPECT_LIMITS[0] <= aspect <= ASPECT_LIMITS[1] else 1.0


def read_header(path: Path) -> dict[str, Any]:
    """What a raw says of itself, as a rule without decoding.

    Returns:
        exposure_s, iso, focal_mm (nan where not told), height, width of the visible area, camera, taken_at (ISO 8601
        or None), orientation (as `Frame.orientation`).

    Raises:
        RawReadError: LibRaw cannot open the file.
    """
    with _opened(path, unpack=False) as (raw, tags):
        exposure_s, iso = _shot(raw, tags)
        return {
            "exposure_s": exposure_s,
            "iso": iso,
            "height": raw.sizes.height,
            "width": raw.sizes.width,
            "camera": tags.camera,
            "taken_at": tags.taken_at,
            "orientation": _orientation(raw),
            "focal_mm": tags.number(FOCAL_LENGTH),
        }


def _white_balance(raw: Any, ranges: NDArray) -> tuple[tuple[float, float, float], bool]:
    """Multipliers of R, G, B, green = 1, as shot, else daylight, else 1; and whether they are as shot. `ranges`: see `one_white`."""
    for as_shot, multipliers in ((True, raw.camera_whitebalance), (False, raw.daylight_whitebalance)):
        red, green, blue = (float(value) for value in np.asarray(multipliers[:3]) * ranges)
        if green > 0 and all(BALANCE_LIMITS[0] <= value / green <= BALANCE_LIMITS[1] for value in (red, blue)):
            return (red / green, 1.0, blue / green), as_shot
    return (1.0, 1.0, 1.0), False


def _matrix(raw: Any, tags: Tags) -> NDArray[np.float32] | None:
    """Camera RGB to linear sRGB: a DNG's own, as LibRaw takes it from its tags; else by LibRaw's table of cameras; None: unknown.

    Of a DNG whose camera is not in that table `rgb_xyz_matrix` is 0.
    """
    own = np.asarray(raw.color_matrix, np.float32)[:, :3]
    is_dng = tags.find(DNG_VERSION) is not None
    if is_dng and tags.find(COLOR_MATRICES[0]) and np.allclose(own.sum(axis=1), 1, atol=1e-3):
        return own
    return camera_to_srgb(raw.rgb_xyz_matrix) if np.any(raw.rgb_xyz_matrix) else None


def _default_crop(raw: Any, tags: Tags) -> tuple[int, int, int, int] | None:
    """The part of the visible area that is the picture: DefaultCrop of a DNG, from its active area; else by LibRaw, from the corner."""
    sizes, origin, size = raw.sizes, tags.find(DEFAULT_CROP_ORIGIN), tags.find(DEFAULT_CROP_SIZE)
    if origin and size and len(origin) == len(size) == 2 and np.isfinite((*origin, *size)).all():
        active = tags.find(ACTIVE_AREA) or (0, 0)
        at = origin[1] + active[0], origin[0] + active[1], size[1], size[0]
    else:
        at = sizes.crop_top_margin, sizes.crop_left_margin, sizes.crop_height, sizes.crop_width
    top, left, height, width = round(at[0]) - sizes.top_margin, round(at[1]) - sizes.left_margin, round(at[2]), round(at[3])
    inside = min(top, left) >= 0 and min(height, width) >= LEAST_SIDE and top + height <= sizes.height and left + width <= sizes.width
    return (top, left, height, width) if inside else None


def _noise_profile(tags: Tags) -> tuple[tuple[float, float], ...] | None:
    """DNG NoiseProfile, one (slope, offset) for all or for each of R, G, B; None where missing, impossible, or of floating-point values.

    LibRaw scales those by the greatest of them where it lies above white, and does not tell.
    """
    values = tags.find(NOISE_PROFILE) or ()
    if tags.picture.get(SAMPLE_FORMAT, (1,))[:1] == (FLOAT,):
        return None
    if len(values) not in (2, 6) or not all(np.isfinite(values)) or min(values) < 0:
        return None
    return tuple(zip(values[::2], values[1::2], strict=True))


def _values(raw: Any) -> tuple[NDArray[np.uint16], Cfa]:
    """Photosites (H, W) and their filters; or three values a pixel (3, H, W), of which a black corner may be what it should.

    Raises:
        ValueError: other filters than Bayer's and X-Trans's, or decoding stopped before the end.
    """
    visible = raw.raw_image_visible
    if visible.ndim == 3:
        return np.moveaxis(visible[..., :3], 2, 0).copy(), UNFILTERED
    _refuse_unfinished(raw)
    return visible.copy(), from_colours(colours(raw, 12))


def _by_masked_sites(frame: Frame, raw: Any, tags: Tags) -> Frame:
    """The frame with the black level that its masked photosites tell, if it has any that look like it."""
    areas, wrong = masked_areas(raw, tags)
    frame = with_masked(frame, raw.raw_image, visible_area(raw.sizes), areas)
    return replace(frame, undone=(*frame.undone, wrong)) if wrong else frame


def read_frame(path: Path, white: WhiteFrom = "measured") -> Frame:
    """Decode the visible area of a Bayer or X-Trans raw, or of one with three values a pixel (linear DNG, sRAW).

    Args:
        path: the file.
        white: whether saturation seen in the photosites of a mosaic overrules the file's white level (`measured_white`).

    Raises:
        RawReadError: LibRaw cannot decode the file, it has other colours, or what it tells contradicts itself.
    """
    with _opened(path, unpack=True) as (raw, tags):
        (values, cfa), (exposure_s, iso) = _values(raw), _shot(raw, tags)
        if cfa == UNFILTERED:
            black = black_of_planes(raw, tags)
            values, white_level, ranges = one_white(raw, tags, values, black)
        else:
            black, white_level, ranges = black_level(raw, tags, len(cfa)), float(raw.white_level), np.ones(3)
        (balance, as_shot), matrix = _white_balance(raw, ranges), _matrix(raw, tags)
        maker = tags.camera.casefold().partition(" ")[0]
        if cfa == UNFILTERED and maker in BALANCED and tags.find(DNG_VERSION) is None:
            balance, as_shot = (1.0, 1.0, 1.0), True
            matrix = np.eye(3, dtype=np.float32) if maker == "nikon" else matrix  # in sRGB too
        as_shot = as_shot and not (matrix is None and np.allclose(balance, 1))  # LibRaw's default, where it knows nothing
        heard = heard_of(tags, values, Area.of(tags, raw.sizes))
        frame = checked(Frame(
            mosaic_dn=values, cfa=cfa, black_level=black,
            white_level=white_level, white_balance=balance, camera=tags.camera,
            camera_to_srgb=np.eye(3, dtype=np.float32) if matrix is None else matrix, noise_profile=_noise_profile(tags),
            orientation=_orientation(raw), exposure_s=exposure_s, iso=iso, default_crop=_default_crop(raw, tags),
            pixel_aspect=_pixel_aspect(raw), denoised=tags.number(NOISE_REDUCED) > 0,
            defects=heard.defects, shading=heard.shading, lens=heard.lens, undone=tuple(heard.undone),
            guessed=(*([] if as_shot else ["white balance"]), *(["colour matrix"] if matrix is None else [])),
        ))  # fmt: skip
        frame = frame if cfa == UNFILTERED else _by_masked_sites(frame, raw, tags)
    if white == "tag" or cfa == UNFILTERED:
        return frame
    return with_white(frame, *measured_white(frame.mosaic_dn, frame.cfa, frame.white_level))
