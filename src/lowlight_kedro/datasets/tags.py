"""The tags of a raw, read from its TIFF directories without a decoder, in bounded time on any bytes.

Standards: TIFF 6.0, EXIF 2.32, Adobe DNG 1.7.1. A RAF holds two TIFF structures (Exif within its preview, and one
with Fuji's own tags); other containers (CR3, JPEG-like) go through exifread.
"""

import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

MAKE, MODEL, EXPOSURE_TIME, ISO, TAKEN_AT, FOCAL_LENGTH = 271, 272, 33434, 34855, 36867, 37386
WIDTH, HEIGHT, SAMPLE_FORMAT, DNG_VERSION, ACTIVE_AREA, NOISE_PROFILE = 256, 257, 339, 50706, 50829, 51041
BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, FUJI_BLACK = 50713, 50714, 50715, 50716, 0xF00A
F_NUMBER, UNIQUE_CAMERA, ANALOG_BALANCE = 33437, 50708, 50727
COLOR_MATRICES, CAMERA_CALIBRATIONS, ILLUMINANTS, FORWARD_MATRICES = (50721, 50722), (50723, 50724), (50778, 50779), (50964, 50965)
BASELINE_EXPOSURES = (50730, 51109)  # BaselineExposure, BaselineExposureOffset
DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE = 50719, 50720
STRIPS, TILES = (273, 279), (324, 325)  # offsets and byte counts of the image's data
ISO_SOURCES = (ISO, 34866, 34867)  # PhotographicSensitivity, RecommendedExposureIndex, ISOSpeed
SUB_DIRECTORIES = (330, 34665, 0xF000)  # SubIFDs, EXIF, Fuji
NUMBERS = {
    MAKE, MODEL, EXPOSURE_TIME, TAKEN_AT, FOCAL_LENGTH, WIDTH, HEIGHT, SAMPLE_FORMAT, DNG_VERSION, ACTIVE_AREA, NOISE_PROFILE,
    BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, FUJI_BLACK, *ISO_SOURCES, *SUB_DIRECTORIES, *STRIPS, *TILES,
    DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, F_NUMBER, UNIQUE_CAMERA, ANALOG_BALANCE, *COLOR_MATRICES, *CAMERA_CALIBRATIONS,
    *ILLUMINANTS, *FORWARD_MATRICES, *BASELINE_EXPOSURES,
}  # fmt: skip
FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
MAGIC = {b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"}  # TIFF, Olympus, Panasonic
MAX_DIRECTORIES, MAX_ENTRIES, MAX_BYTES = 32, 1024, 1 << 20  # more than any camera writes
ISO_OVERFLOW = 65535  # the greatest value of PhotographicSensitivity; the true one is then in the other two

Directory = dict[int, Any]


@dataclass(frozen=True)
class Tags:
    """The directories of one file, each `{number: text or tuple of numbers}`."""

    directories: tuple[Directory, ...]

    def find(self, number: int) -> Any:
        """The value of a tag in the first directory that has it, else None."""
        return next((directory[number] for directory in self.directories if number in directory), None)

    def number(self, number: int) -> float:
        """The first number of a tag; nan where it is missing, 0, negative or not finite."""
        value = self.find(number)
        first = float(value[0]) if isinstance(value, tuple) and value else float("nan")
        return first if 0 < first < float("inf") else float("nan")

    def image(self, height: int, width: int) -> Directory | None:
        """The first directory of an image of this size."""
        size = ((height,), (width,))
        return next((found for found in self.directories if (found.get(HEIGHT), found.get(WIDTH)) == size), None)

    @property
    def camera(self) -> str:
        """Maker and model, the model alone where it begins with the maker's name, or `"unknown camera"`."""
        words = [value for value in map(self.find, (MAKE, MODEL)) if isinstance(value, str) and value]
        repeats = len(words) == 2 and words[1].casefold().startswith(words[0].split()[0].casefold())
        return words[1] if repeats else " ".join(words) or "unknown camera"

    @property
    def iso(self) -> float:
        """ISO speed; nan where no tag tells it."""
        speeds = [self.number(number) for number in ISO_SOURCES]
        return next((speed for speed in speeds if speed > 0 and speed != ISO_OVERFLOW), speeds[0])

    @property
    def taken_at(self) -> str | None:
        """Start of the exposure by the camera's clock, ISO 8601 without a time zone."""
        with suppress(ValueError, TypeError):
            return datetime.strptime(self.find(TAKEN_AT), "%Y:%m:%d %H:%M:%S").isoformat()
        return None


def _decode(kind: int, count: int, order: str, data: bytes) -> Any:
    """The bytes of a value as text, a tuple of numbers, or fractions as floats."""
    if kind == 2:
        return "".join(letter for letter in data.split(b"\0")[0].decode("utf-8", "replace") if letter.isprintable()).strip()[:200]
    values = struct.unpack(f"{order}{count * len(FORMATS[kind])}{FORMATS[kind][0]}", data)
    if kind in (5, 10):
        return tuple(top / bottom if bottom else float("nan") for top, bottom in zip(values[::2], values[1::2], strict=True))
    return values


def _directory(file: BinaryIO, base: int, start: int, order: str) -> tuple[Directory, int]:
    """One directory at `base + start`, and where the next one begins (0: nowhere). Bad entries are left out."""
    file.seek(base + start)
    (count,) = struct.unpack(order + "H", file.read(2))
    body = file.read(12 * min(count, MAX_ENTRIES) + 4)
    found: Directory = {}
    for entry in range(min(count, MAX_ENTRIES, len(body) // 12)):
        number, kind, length = struct.unpack_from(order + "HHI", body, 12 * entry)
        size = struct.calcsize("=" + FORMATS.get(kind, "")) * length
        if number not in NUMBERS or not 0 < size <= MAX_BYTES:
            continue
        data = body[12 * entry + 8 : 12 * entry + 8 + size]
        if size > 4:
            file.seek(base + struct.unpack_from(order + "I", body, 12 * entry + 8)[0])
            data = file.read(size)
        if len(data) == size:
            found[number] = _decode(kind, length, order, data)
    return found, struct.unpack(order + "I", body[-4:])[0] if count <= MAX_ENTRIES and len(body) == 12 * count + 4 else 0


def _directories(file: BinaryIO, base: int) -> Iterator[Directory]:
    """All directories of the TIFF structure at `base`, breadth first, each once."""
    file.seek(base)
    header = file.read(8)
    if header[:4] not in MAGIC:
        return
    order = "<" if header.startswith(b"II") else ">"
    waiting, seen = [struct.unpack(order + "I", header[4:8])[0]], {0}
    while waiting and len(seen) <= MAX_DIRECTORIES:
        start = waiting.pop(0)
        if start in seen:
            continue
        seen.add(start)
        with suppress(struct.error):
            found, following = _directory(file, base, start, order)
            yield found
            waiting += [following, *(at for number in SUB_DIRECTORIES for at in found.get(number, ()) if isinstance(at, int))]


def _raf(file: BinaryIO) -> Iterator[Directory]:
    """The directories of a Fuji RAF: Exif in its preview (offset at byte 84), Fuji's own (offset at byte 100)."""
    file.seek(84)
    offsets = struct.unpack(">5I", file.read(20))
    yield from _directories(file, offsets[0] + 12)  # after FFD8 FFE1, length, "Exif\0\0"
    yield from _directories(file, offsets[4])


def _by_exifread(file: BinaryIO) -> Directory:
    """What exifread finds, under the numbers of EXIF."""
    import exifread

    logging.getLogger("exifread").setLevel(logging.CRITICAL + 1)
    names = {"Image Make": MAKE, "Image Model": MODEL, "EXIF ExposureTime": EXPOSURE_TIME, "EXIF ISOSpeedRatings": ISO,
             "EXIF DateTimeOriginal": TAKEN_AT, "EXIF FocalLength": FOCAL_LENGTH}  # fmt: skip
    file.seek(0)
    try:
        found = exifread.process_file(file, details=False, extract_thumbnail=False)
        texts = {number: str(found[name]).strip() for name, number in names.items() if name in found}
        return {k: v if k in (MAKE, MODEL, TAKEN_AT) else (float(found[name].values[0]),)
                for name, k in names.items() if (v := texts.get(k))}  # fmt: skip
    except Exception:  # noqa: BLE001 - a third-party parser on arbitrary bytes; what it would tell is optional
        return {}


def read_tags(path: Path) -> Tags:
    """The tags of a raw; none where the file holds none. Never fails on what the file holds.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        start = file.read(16)
        with suppress(struct.error, OverflowError):
            if start[:4] in MAGIC:
                return Tags(tuple(_directories(file, 0)))
            if start.startswith(b"FUJIFILMCCD-RAW"):
                return Tags(tuple(_raf(file)))
        return Tags((_by_exifread(file),))
