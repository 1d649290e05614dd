"""What the camera noted and the photographer wrote beside a picture, carried from a raw to other files (Exif 2.32, XMP).

Maker notes go into DNGs only, see `carried`. Not carried: the raw's own sizes, previews and pixel layout. What is damaged or cannot be
true is left out, and `lost` says so.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np

from lowlight_kedro.datasets.carried import DNG_PRIVATE, LARGEST_PACKET, MAKER_NOTE, NOTES, NOTES_IN_DNG, kept_in_dng, packet_of
from lowlight_kedro.datasets.containers import cr3_notes, cr3_xmp, structures
from lowlight_kedro.datasets.decoding import without_libraws_lines
from lowlight_kedro.datasets.tags import (
    F_NUMBER,
    FOCAL_LENGTH,
    FORMATS,
    ISO_OVERFLOW,
    MAKE,
    MAX_BYTES,
    MODEL,
    TAKEN_AT,
    Entry,
    Tags,
    directories,
    read_tags,
)
from lowlight_kedro.package import __version__
from lowlight_kedro.sensor.frame import UNKNOWN_CAMERA, Frame

ORIENTATION, DESCRIPTION, XMP, EXIF_POINTER, GPS_POINTER, IPTC = 274, 270, 700, 34665, 34853, 33723
LENS_MODEL, LENS_SPECIFICATION, BODY_SERIAL, SOFTWARE, COLOUR_SPACE = 42036, 42034, 42033, 305, 40961
DNG_SERIAL, DNG_LENS_INFO, ARTIST, EXIF_VERSION, FLASHPIX_VERSION, UNCALIBRATED = 50735, 50736, 315, 36864, 40960, 65535
# Of the first directory: ModifyDate, Artist, Rating (2), Copyright, IPTC, TimeZoneOffset, ImageNumber, Windows' texts, DNG's own.
MAIN = {DESCRIPTION, 306, ARTIST, 18246, 18249, 33432, IPTC, 34858, 37393, *range(40091, 40096), DNG_SERIAL, DNG_LENS_INFO}
LEFT_OUT = {
    MAKER_NOTE,
    41730,
    COLOUR_SPACE,
    40962,
    40963,
    40965,
    59932,
    EXIF_POINTER,
    GPS_POINTER,
    EXIF_VERSION,
}  # CFAPattern, sizes, interoperability, padding; the version is that of what is written
LARGEST = 32_768  # bytes of one value; longer ones are a program's own data
EXIF_ORIENTATION = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}  # from LibRaw's flip
TIME_FORMAT = "%Y:%m:%d %H:%M:%S"
GPS_VERSION = Entry(0, 1, 4, bytes((2, 3, 0, 0)))
Numbered = dict[int, Entry]


@dataclass(frozen=True)
class Metadata:
    """Entries by number for the first, the EXIF and the GPS directory, little-endian; an XMP packet (empty: none); and what was lost.

    `notes` are maker notes as a DNG keeps them; no other file gets them.
    """

    main: Mapping[int, Entry]
    exif: Mapping[int, Entry]
    gps: Mapping[int, Entry]
    xmp: bytes = b""
    lost: tuple[str, ...] = ()
    notes: Mapping[int, Entry] = field(default_factory=dict)

    def of_dng(self) -> "Metadata":
        """With the maker notes."""
        exif = {number: entry for number, entry in self.notes.items() if number == MAKER_NOTE}
        main = {number: entry for number, entry in self.notes.items() if number not in exif}
        return replace(self, main=dict(self.main) | main, exif=dict(self.exif) | exif, notes={})

    def saying(self, description: str) -> "Metadata":
        """With our name and `told` as Software, and `told` as description where there is none."""
        main = {DESCRIPTION: text(DESCRIPTION, description)} | dict(self.main)
        return replace(self, main=main | {SOFTWARE: text(SOFTWARE, f"lowlight_kedro {__version__}, {description}")})

    def upright(self) -> "Metadata":
        """Of a picture in sRGB that was turned upright."""
        entries = {entry.number: entry for entry in (short(ORIENTATION, 1), short(COLOUR_SPACE, 1))}
        xmp = re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>\s*))\d', rb"\g<1>1", self.xmp)
        main, exif = dict(self.main) | {ORIENTATION: entries[ORIENTATION]}, dict(self.exif) | {COLOUR_SPACE: entries[COLOUR_SPACE]}
        return replace(self, main=main, exif=exif, xmp=xmp)


def history(source: Path | None, ratio: float) -> str:
    """How a restored picture was made, in words."""
    return f"restored{f' from {source.name}' if source else ''}, {ratio:g} times brighter than exposed"


def short(number: int, value: int) -> Entry:
    """A number of 16 bits."""
    return Entry(number, 3, 1, struct.pack("<H", value))


def text(number: int, value: str) -> Entry:
    """A text, UTF-8 where ASCII cannot hold it."""
    data = value.encode() + b"\0"
    return Entry(number, 2, len(data), data)


def fractions(number: int, values: Iterable[float], finest: int) -> Entry:
    """Rationals with denominators of at most `finest`."""
    parts = [Fraction(value).limit_denominator(finest) for value in values]
    return Entry(number, 5, len(parts), b"".join(struct.pack("<II", part.numerator, part.denominator) for part in parts))


def _little(entry: Entry, order: str) -> Entry:
    """The same entry, little-endian."""
    letter = FORMATS[entry.kind][0]
    if order == "<" or letter in "sBb":
        return entry
    count = len(entry.data) // struct.calcsize(letter)
    return replace(entry, data=struct.pack(f"<{count}{letter}", *struct.unpack(f">{count}{letter}", entry.data)))


def _told_by_frame(frame: Frame, tags: Tags) -> Iterator[Entry]:
    """What the frame knows, and LibRaw where no tag does, of the exposure; for what the EXIF directory of the raw does not hold."""
    if np.isfinite(frame.exposure_s):
        yield fractions(33434, [frame.exposure_s], 1_000_000)
    for number in (F_NUMBER, FOCAL_LENGTH):
        if np.isfinite(tags.number(number)):
            yield fractions(number, [tags.number(number)], 100)
    if np.isfinite(frame.iso):
        yield short(34855, min(round(frame.iso), ISO_OVERFLOW))
        yield Entry(34866, 4, 1, struct.pack("<I", round(frame.iso)))  # RecommendedExposureIndex, for what exceeds 16 bits
        yield short(34864, 2)  # SensitivityType: the one above
    if tags.taken_at:
        yield text(TAKEN_AT, datetime.fromisoformat(tags.taken_at).strftime(TIME_FORMAT))
    yield Entry(EXIF_VERSION, 7, 4, b"0232")
    yield Entry(FLASHPIX_VERSION, 7, 4, b"0100")  # Exif wants it
    yield short(COLOUR_SPACE, UNCALIBRATED)


def names(frame: Frame, tags: Tags) -> Iterator[Entry]:
    """Maker and model as the raw has them, else the first word of `frame.camera` and the rest; none of a camera without a name."""
    found = [tags.find(number) for number in (MAKE, MODEL)]
    if all(isinstance(name, str) and name for name in found):
        yield from (text(number, name) for number, name in zip((MAKE, MODEL), found, strict=True))
    elif frame.camera != UNKNOWN_CAMERA:
        make, _, model = frame.camera.partition(" ")
        yield from (text(MAKE, make), text(MODEL, model or make))


def of_frame(frame: Frame, tags: Tags | None = None) -> Metadata:
    """What the frame itself knows, and the tags of its file."""
    main = [*names(frame, tags or Tags(())), short(ORIENTATION, EXIF_ORIENTATION[frame.orientation])]
    exif = _told_by_frame(frame, tags or Tags(()))
    return Metadata({entry.number: entry for entry in main}, {entry.number: entry for entry in exif}, {})


def _gps_is_wrong(gps: Numbered) -> str | None:
    """Why a position cannot be; None = it can, or there is none."""
    for number, what, letters, most in ((2, "latitude", "NS", 90), (4, "longitude", "EW", 180)):
        if number not in gps:
            continue
        value, letter = gps[number], gps.get(number - 1)
        if value.kind != 5 or value.count != 3 or letter is None or letter.data[:1].decode("ascii", "replace") not in letters:
            return f"the {what} of its GPS position is torn"
        parts = struct.unpack("<6I", value.data)
        if (
            not all(parts[1::2])
            or sum(top / bottom / 60**place for place, (top, bottom) in enumerate(zip(parts[::2], parts[1::2], strict=True))) > most
        ):
            return f"the {what} of its GPS position cannot be"
    return None


def _too_long(number: int, role: str) -> str:
    """What to tell of a value that was not even read."""
    return NOTES if number in (MAKER_NOTE, DNG_PRIVATE) else f"tag {number} of its {role} directory, more than {MAX_BYTES} bytes"


def _read(path: Path) -> tuple[dict[str, Numbered], bytes, list[str], str]:
    """The entries of the first, the EXIF and the GPS directory, the embedded XMP, what is damaged, and the byte order of the EXIF."""
    found: dict[str, Numbered] = {"main": {}, "exif": {}, "gps": {}}
    xmp, torn, lost, order = b"", 0, list[str](), "<"
    with path.open("rb") as file, suppress(struct.error, OverflowError, ValueError):
        xmp = cr3_xmp(file, LARGEST_PACKET + 1)
        notes = cr3_notes(file, MAX_BYTES)
        if notes:
            found["exif"][MAKER_NOTE] = Entry(MAKER_NOTE, 7, len(notes) - 8, notes[8:], 8)
        for at in structures(file):
            for read in directories(file, at):
                if read.role in found:
                    torn, order = torn + read.torn, read.order if read.role == "exif" else order
                    missed = [number for number in read.too_long if read.role != "main" or number in {*MAIN, DNG_PRIVATE}]
                    lost += [_too_long(number, read.role) for number in missed]
                    for entry in read.entries:
                        found[read.role].setdefault(entry.number, _little(entry, read.order))
    if torn:
        lost.append(f"{torn} values that lie beyond the end of the file")
    if XMP in found["main"]:
        xmp = found["main"][XMP].data
    return found, xmp, lost, order


def _small(entries: Numbered, lost: list[str], what: str) -> Numbered:
    """Without what is too long, which `lost` then names."""
    large = {number: entry for number, entry in entries.items() if len(entry.data) > LARGEST}
    lost.extend(f"tag {number} of its {what} directory, {len(entry.data)} bytes" for number, entry in large.items())
    return {number: entry for number, entry in entries.items() if number not in large}


def _by_libraw(path: Path, held: Numbered) -> Iterator[Entry]:
    """What LibRaw finds in makers' notes and in formats without EXIF: lens, aperture, focal length, time, artist."""
    import rawpy

    raw = rawpy.RawPy()
    try:
        with without_libraws_lines():
            raw.open_file(str(path))
            lens, shot = raw.lens.model, None if TAKEN_AT in held else raw.other  # it decodes the picture to tell
        if lens:
            yield text(LENS_MODEL, lens)
        if shot is not None:
            for number, value in ((F_NUMBER, shot.aperture), (FOCAL_LENGTH, shot.focal_length)):
                if 0 < value < 10_000:
                    yield fractions(number, [value], 100)
            if shot.timestamp and shot.timestamp.year > 1980:
                yield text(TAKEN_AT, shot.timestamp.strftime(TIME_FORMAT))
            if shot.artist:
                yield text(ARTIST, shot.artist)
    except rawpy.LibRawError:
        return
    finally:
        raw.close()


def _lens(found: dict[str, Numbered], xmp: bytes) -> Iterator[Entry]:
    """Lens and serial number under EXIF's numbers, from where DNG has them."""
    named = re.search(rb'aux:Lens\s*=\s*"([^"<&]{1,200})"', xmp)
    if named:
        yield text(LENS_MODEL, named.group(1).decode("utf-8", "replace"))
    for there, here in ((DNG_LENS_INFO, LENS_SPECIFICATION), (DNG_SERIAL, BODY_SERIAL)):
        if there in found["main"]:
            yield replace(found["main"][there], number=here)


def read_metadata(path: Path, frame: Frame) -> Metadata:
    """The metadata of the raw at `path`; its file may be damaged, or hold none.

    Args:
        path: the raw; a sidecar `NAME.xmp` or `NAME.ARW.xmp` beside it counts more than what is embedded.
        frame: the raw decoded; tells what the directories do not.

    Raises:
        OSError: the file cannot be read.
    """
    found, embedded, lost, order = _read(path)
    own = of_frame(frame, read_tags(path))
    xmp, wrong = packet_of(path, embedded)
    lost += wrong
    notes = kept_in_dng(found["main"], found["exif"], order)
    if (MAKER_NOTE in found["exif"] or not found["main"]) and NOTES not in lost:  # a CRW holds its notes in a format of its own
        lost.append(NOTES_IN_DNG if notes else NOTES)
    main = {number: entry for number, entry in found["main"].items() if number in MAIN}
    exif = {number: entry for number, entry in found["exif"].items() if number not in LEFT_OUT}
    gps, problem = {0: GPS_VERSION} | found["gps"], _gps_is_wrong(found["gps"])
    if problem:
        lost.append(problem)
    if problem or not found["gps"]:
        gps = {}
    by_libraw = {} if LENS_MODEL in exif else {entry.number: entry for entry in _by_libraw(path, exif)}
    artist = {ARTIST: by_libraw.pop(ARTIST)} if ARTIST in by_libraw else {}
    carried = {entry.number: entry for entry in _lens(found, xmp)} | by_libraw | _small(exif, lost, "EXIF")
    main = artist | _small(main, lost, "first") | dict(own.main)
    return Metadata(main, dict(own.exif) | carried, _small(gps, lost, "GPS"), xmp, tuple(dict.fromkeys(lost)), notes)


def of_restored(source: Path | None, frame: Frame, ratio: float, metadata: Metadata | None = None) -> Metadata:
    """That of the raw, with how the picture was made; `metadata`: what `read_metadata` gave of the raw, where it was read before."""
    found = metadata or (of_frame(frame) if source is None else read_metadata(source, frame))
    return found.saying(history(source, ratio))
