"""Where raws keep their TIFF structures: TIFF itself, Fuji RAF, Canon CR3, Minolta MRW, Sigma X3F, JPEG; and what CRW and X3F say without.

Bounded on any bytes.

Sources: Exif 2.32 (JPEG); ISO/IEC 14496-12 (boxes of CR3) with the names of lclevy's canon_cr3 description; CIFF 1.0 (CRW); dcraw's
reader (RAF, MRW); Foveon's X3F_Format.pdf as exiftool reads it (X3F).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

Role = Literal["main", "exif", "gps", "below", "own"]
MAGIC = {b"II*\0", b"MM\0*", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"}  # TIFF, Olympus, Panasonic
CR3_ROLES: dict[bytes, Role] = {b"CMT1": "main", b"CMT2": "exif", b"CMT4": "gps"}
CR3_NOTES = b"CMT3"
CR3_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # its uuid
MAX_BLOCKS = 256  # boxes, segments and entries looked at in one file
RAW_MAKE_MODEL, CIFF_FOLDERS = 0x080A, (0x2800, 0x3000)


FINISHED = {  # how pictures and films begin that are no raws; the letters of ISO/IEC 14496-12 stand behind four bytes
    "JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG",), "GIF": (b"GIF8",), "WebP": (b"RIFF",), "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "HEIF or AVIF": (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1", b"ftypavi"),
    "film": (b"ftypqt", b"ftypmp4", b"ftypisom", b"ftypcrxv"),
}  # fmt: skip


@dataclass(frozen=True)
class Structure:
    """A TIFF structure at byte `base`, and what its first directory is."""

    base: int
    role: Role = "main"


def finished_kind(path: Path) -> str | None:
    """What a file is that is no raw, by its first bytes; None: nothing known."""
    with path.open("rb") as file:
        start = file.read(16)
    return next((kind for kind, begins in FINISHED.items() if start.startswith(begins) or start[4:].startswith(begins)), None)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, first byte and end of the content of each box (ISO/IEC 14496-12) in a range of bytes."""
    for _ in range(MAX_BLOCKS):
        file.seek(start)
        head = file.read(8)
        if start + 8 > end or len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head)
        at = start + 8
        if size == 1:
            size, at = struct.unpack(">Q", file.read(8))[0], at + 8
        if size < at - start:
            return
        yield kind, at, min(start + size, end)
        start += size


def _cr3_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Those of Canon's own uuid, each a TIFF structure."""
    for kind, at, end in _boxes(file, 0, _size(file)):
        for below, start, stop in _boxes(file, at, end) if kind == b"moov" else ():
            yield from _boxes(file, start + 16, stop) if below == b"uuid" else ()


def _cr3(file: BinaryIO) -> Iterator[Structure]:
    yield from (Structure(place, CR3_ROLES[name]) for name, place, _ in _cr3_boxes(file) if name in CR3_ROLES)


def _is_cr3(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(12)[4:] == b"ftypcrx "


def cr3_notes(file: BinaryIO, most: int) -> bytes:
    """The maker notes of a CR3, a TIFF structure; empty where there are none, or more than `most` bytes."""
    for name, at, end in _cr3_boxes(file) if _is_cr3(file) else ():
        if name == CR3_NOTES and 8 < end - at <= most:
            file.seek(at)
            return file.read(end - at)
    return b""


def cr3_xmp(file: BinaryIO, most: int) -> bytes:
    """The XMP packet of a CR3, up to `most` bytes; empty where there is none."""
    for kind, at, end in _boxes(file, 0, _size(file)) if _is_cr3(file) else ():
        file.seek(at)
        if kind == b"uuid" and file.read(16) == CR3_XMP:
            return file.read(min(end - at - 16, most))
    return b""


def _jpeg(file: BinaryIO, start: int = 0) -> Iterator[Structure]:
    """Exif in the segment APP1 of a JPEG at byte `start`."""
    at = start + 2
    for _ in range(MAX_BLOCKS):
        file.seek(at)
        marker, length = struct.unpack(">HH", file.read(4))
        if marker == 0xFFE1 and file.read(6) == b"Exif\0\0":
            yield Structure(at + 10)
            return
        if not 0xFFE0 <= marker <= 0xFFEF:
            return
        at += 2 + length


def _raf(file: BinaryIO) -> Iterator[Structure]:
    """Exif in its preview (offset at byte 84), Fuji's own (offset at byte 100)."""
    file.seek(84)
    offsets = struct.unpack(">5I", file.read(20))
    yield Structure(offsets[0] + 12)  # after FFD8 FFE1, length, "Exif\0\0"
    yield Structure(offsets[4], "own")


def _mrw(file: BinaryIO) -> Iterator[Structure]:
    """The block TTW."""
    file.seek(4)
    end, at = 8 + struct.unpack(">I", file.read(4))[0], 8
    for _ in range(MAX_BLOCKS):
        file.seek(at)
        head = file.read(8)
        if at >= end or len(head) < 8:
            return
        name, length = struct.unpack(">4sI", head)
        if name == b"\0TTW":
            yield Structure(at + 8)
        at += 8 + length


def _x3f_sections(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and first byte of each section of an X3F; its last four bytes say where the list of them lies."""
    file.seek(-4, os.SEEK_END)
    file.seek(struct.unpack("<I", file.read(4))[0])
    name, _, count = struct.unpack("<4sII", file.read(12))
    listed = file.read(12 * min(count, MAX_BLOCKS)) if name == b"SECd" else b""
    for place in range(0, len(listed) - 11, 12):
        offset, _, kind = struct.unpack_from("<II4s", listed, place)
        yield kind, offset


def _x3f(file: BinaryIO) -> Iterator[Structure]:
    """Exif in its JPEG, behind 28 bytes of the section's own."""
    for kind, at in list(_x3f_sections(file)):
        file.seek(at + 28)
        if kind == b"IMA2" and file.read(3) == b"\xff\xd8\xff":
            yield from _jpeg(file, at + 28)


def _x3f_names(file: BinaryIO) -> tuple[str, ...]:
    """Maker and model of the properties, which are UTF-16 texts: all that the first Sigmas tell."""
    for kind, at in list(_x3f_sections(file)):
        if kind != b"PROP":
            continue
        file.seek(at)
        _, _, count, _, _, letters = struct.unpack("<4s5I", file.read(24))
        places = file.read(8 * min(count, MAX_BLOCKS))
        texts = file.read(2 * min(letters, 1 << 16)).decode("utf-16-le", "replace")
        pairs = (struct.unpack_from("<II", places, place) for place in range(0, len(places) - 7, 8))
        header = {texts[name:].partition("\0")[0]: texts[value:].partition("\0")[0] for name, value in pairs}
        return tuple(header.get(name, "") for name in ("CAMMANUF", "CAMMODEL"))
    return ()


def structures(file: BinaryIO) -> Iterator[Structure]:
    """The TIFF structures of a file, the one with maker and model first; none where the container is not known."""
    file.seek(0)
    start = file.read(16)
    if start[:4] in MAGIC:
        yield Structure(0)
    elif start.startswith(b"FUJIFILMCCD-RAW"):
        yield from _raf(file)
    elif start[4:12] == b"ftypcrx ":
        yield from _cr3(file)
    elif start.startswith(b"\0MRM"):
        yield from _mrw(file)
    elif start.startswith(b"FOVb"):
        yield from _x3f(file)
    elif start.startswith(b"\xff\xd8\xff"):
        yield from _jpeg(file)


def _heap(file: BinaryIO, start: int, end: int, order: str, depth: int) -> tuple[str, ...]:
    """Maker and model in a heap of a CRW (CIFF 1.0): its directory stands at its end."""
    file.seek(end - 4)
    (at,) = struct.unpack(order + "I", file.read(4))
    file.seek(start + at)
    (count,) = struct.unpack(order + "H", file.read(2))
    body = file.read(10 * min(count, MAX_BLOCKS))
    for place in range(0, len(body) - 9, 10):
        kind, size, offset = struct.unpack_from(order + "HII", body, place)
        if kind & 0xC000:  # the value stands in the directory itself
            continue
        if kind & 0x3FFF == RAW_MAKE_MODEL:
            file.seek(start + offset)
            return tuple(text.decode("ascii", "replace") for text in file.read(min(size, 256)).split(b"\0")[:2])
        if kind & 0x3800 in CIFF_FOLDERS and depth:
            found = _heap(file, start + offset, start + offset + size, order, depth - 1)
            if found:
                return found
    return ()


def names_without_tiff(file: BinaryIO) -> tuple[str, ...]:
    """Maker and model of a Canon CRW or a Sigma X3F, which may hold no TIFF structure; empty where it is neither."""
    file.seek(0)
    head = file.read(14)
    if head.startswith(b"FOVb"):
        return _x3f_names(file)
    if head[6:] != b"HEAPCCDR":
        return ()
    order = "<" if head.startswith(b"II") else ">"
    return _heap(file, struct.unpack(order + "I", head[2:6])[0], _size(file), order, 3)
