"""The tags of a raw, read from its TIFF directories without a decoder, in bounded time on any bytes.

Standards: TIFF 6.0, EXIF 2.32, Adobe DNG 1.7.1. Where a file keeps its directories says `containers`.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lowlight_kedro.datasets.containers import MAGIC, Role, Structure, names_without_tiff, structures
from lowlight_kedro.sensor.frame import UNKNOWN_CAMERA

MAKE, MODEL, EXPOSURE_TIME, ISO, TAKEN_AT, FOCAL_LENGTH = 271, 272, 33434, 34855, 36867, 37386
WIDTH, HEIGHT, SAMPLE_FORMAT, DNG_VERSION, ACTIVE_AREA, MASKED_AREAS, NOISE_PROFILE = 256, 257, 339, 50706, 50829, 50830, 51041
BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, FUJI_BLACK = 50713, 50714, 50715, 50716, 0xF00A
F_NUMBER, UNIQUE_CAMERA, ANALOG_BALANCE, NOISE_REDUCED = 33437, 50708, 50727, 50935
COLOR_MATRICES, CAMERA_CALIBRATIONS, ILLUMINANTS, FORWARD_MATRICES = (50721, 50722), (50723, 50724), (50778, 50779), (50964, 50965)
BASELINE_EXPOSURES = (50730, 51109)  # BaselineExposure, BaselineExposureOffset
DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, WHITE_LEVEL = 50719, 50720, 50717
SUBFILE_TYPE, COMPRESSION, PHOTOMETRIC = 254, 259, 262
OPCODE_LISTS = (51008, 51009, 51022)  # done with the stored values, with linear photosites, after demosaicing
STRIPS, TILES = (273, 279), (324, 325)  # offsets and byte counts of the image's data
ISO_SOURCES = (ISO, 34866, 34867)  # PhotographicSensitivity, RecommendedExposureIndex, ISOSpeed
SUB_DIRECTORIES: dict[int, Role] = {330: "below", 34665: "exif", 34853: "gps", 0xF000: "own"}  # SubIFDs, EXIF, GPS, Fuji
NUMBERS = {
    MAKE, MODEL, EXPOSURE_TIME, TAKEN_AT, FOCAL_LENGTH, WIDTH, HEIGHT, SAMPLE_FORMAT, DNG_VERSION, ACTIVE_AREA, MASKED_AREAS,
    NOISE_PROFILE,
    BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, FUJI_BLACK, *ISO_SOURCES, *SUB_DIRECTORIES, *STRIPS, *TILES,
    DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, F_NUMBER, UNIQUE_CAMERA, ANALOG_BALANCE, *COLOR_MATRICES, *CAMERA_CALIBRATIONS,
    *ILLUMINANTS, *FORWARD_MATRICES, *BASELINE_EXPOSURES, NOISE_REDUCED, SUBFILE_TYPE, COMPRESSION, PHOTOMETRIC, *OPCODE_LISTS, WHITE_LEVEL,
}  # fmt: skip
FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
MAX_DIRECTORIES, MAX_ENTRIES, MAX_BYTES = 32, 1024, 1 << 20  # more than any camera writes
ISO_OVERFLOW = 65535  # the greatest value of PhotographicSensitivity; the true one is then in the other two

Directory = dict[int, Any]


@dataclass(frozen=True)
class Tags:
    """The directories of one file, each `{number: text or tuple of numbers}`; `too_long`: whose values were not read."""

    directories: tuple[Directory, ...]
    too_long: frozenset[int] = frozenset()

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
    def picture(self) -> Directory:
        """The directory of the largest image that is no preview; empty where none is told."""
        sized = [found for found in self.directories if all(isinstance(found.get(side), tuple) for side in (WIDTH, HEIGHT))]
        images = [found for found in sized if found.get(SUBFILE_TYPE, (0,)) == (0,)]
        return max(images, key=lambda found: found[WIDTH][0] * found[HEIGHT][0], default={})

    @property
    def camera(self) -> str:
        """Maker and model, the model alone where it begins with a word of the maker's name; else a DNG's own name, or UNKNOWN_CAMERA."""
        words = [value for value in map(self.find, (MAKE, MODEL)) if isinstance(value, str) and value]
        repeats = len(words) == 2 and words[1].casefold().split()[0] in words[0].casefold().split()
        unique = self.find(UNIQUE_CAMERA)
        return words[1] if repeats else " ".join(words) or (isinstance(unique, str) and unique) or UNKNOWN_CAMERA

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


@dataclass(frozen=True)
class Entry:
    """A value as it lies in a directory; `data` in the byte order of its file, if long `at` bytes behind the beginning of its structure."""

    number: int
    kind: int
    count: int
    data: bytes
    at: int = field(default=0, compare=False)


def _entries(file: BinaryIO, base: int, start: int, order: str) -> tuple[list[Entry], int, int, list[int]]:
    """All of the directory at `base + start` that are whole, where the next one begins (0: nowhere), how many are torn, which too long."""
    file.seek(base + start)
    (count,) = struct.unpack(order + "H", file.read(2))
    body = file.read(12 * min(count, MAX_ENTRIES) + 4)
    found, too_long, torn = [], list[int](), max(min(count, MAX_ENTRIES) - len(body) // 12, 0)
    for at in range(0, 12 * min(count, MAX_ENTRIES, len(body) // 12), 12):
        number, kind, length = struct.unpack_from(order + "HHI", body, at)
        size = struct.calcsize("=" + FORMATS.get(kind, "")) * length
        if size > MAX_BYTES:
            too_long.append(number)
        if not 0 < size <= MAX_BYTES:
            continue
        data, place = body[at + 8 : at + 8 + size], 0
        if size > 4:
            (place,) = struct.unpack_from(order + "I", body, at + 8)
            file.seek(base + place)
            data = file.read(size)
        if len(data) == size:
            found.append(Entry(number, kind, length, data, place))
        else:
            torn += 1
    whole = count <= MAX_ENTRIES and len(body) == 12 * count + 4
    return found, struct.unpack(order + "I", body[-4:])[0] if whole else 0, torn, too_long


class Directories(NamedTuple):
    """One directory: what it is, its entries, their byte order, how many are torn, and the numbers of those longer than MAX_BYTES."""

    role: Role
    entries: list[Entry]
    order: str
    torn: int
    too_long: list[int]


def directories(file: BinaryIO, at: Structure) -> Iterator[Directories]:
    """All directories of a TIFF structure, breadth first, each once. Those that follow the first in a chain lie `below` it."""
    file.seek(at.base)
    header = file.read(8)
    if header[:4] not in MAGIC:
        return
    order = "<" if header.startswith(b"II") else ">"
    waiting: list[tuple[int, Role]] = [(struct.unpack(order + "I", header[4:8])[0], at.role)]
    seen = {0}
    while waiting and len(seen) <= MAX_DIRECTORIES:
        start, role = waiting.pop(0)
        if start in seen:
            continue
        seen.add(start)
        with suppress(struct.error):
            found, following, torn, too_long = _entries(file, at.base, start, order)
            yield Directories(role, found, order, torn, too_long)
            waiting.append((following, "below"))
            for entry in found:
                if entry.number in SUB_DIRECTORIES and entry.kind in (4, 13):
                    waiting += [(place, SUB_DIRECTORIES[entry.number]) for place in _decode(entry.kind, entry.count, order, entry.data)]


def _directory(read: Directories) -> Directory:
    """The values of the numbers that are used here."""
    return {
        entry.number: _decode(entry.kind, entry.count, read.order, entry.data) for entry in read.entries if entry.number in NUMBERS
    }  # fmt: skip


def read_tags(path: Path) -> Tags:
    """The tags of a raw; none where the file holds none. Never fails on what the file holds.

    Raises:
        OSError: the file cannot be opened or read.
    """
    found, too_long = list[Directory](), set[int]()
    with path.open("rb") as file, suppress(struct.error, OverflowError, ValueError):
        for at in structures(file):
            for read in directories(file, at):
                found.append(_directory(read))
                too_long.update(read.too_long)
        names = () if found else names_without_tiff(file)
        found += [dict(zip((MAKE, MODEL), names, strict=False))] if names else []
    return Tags(tuple(found), frozenset(too_long))
