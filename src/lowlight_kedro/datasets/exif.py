"""`Metadata` into files: TIFF and DNG, JPEG and PNG. Directories as TIFF 6.0 and Exif 2.32 have them, little-endian."""

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowlight_kedro.datasets.metadata import EXIF_POINTER, GPS_POINTER, IPTC, XMP, Entry, Metadata, fractions, short

SUB_IFDS = 330
PLACEHOLDERS = {EXIF_POINTER: 34664, GPS_POINTER: 34852}  # tifffile writes no pointers; the same places in the sorted directory
RATIONALS = {5: "2I", 10: "2i"}  # as tifffile counts them
MOST_IN_JPEG = 65_000  # bytes of a segment, a little less than it holds


def packed(entries: Iterable[Entry], start: int) -> bytes:
    """A directory that will lie at byte `start` of its structure, and behind it what does not fit into its entries."""
    ordered = sorted(entries, key=lambda entry: entry.number)
    directory, values = struct.pack("<H", len(ordered)), b""
    values_at = start + 2 + 12 * len(ordered) + 4
    for entry in ordered:
        long = len(entry.data) > 4
        place = struct.pack("<I", values_at + len(values)) if long else entry.data.ljust(4, b"\0")
        directory += struct.pack("<HHI", entry.number, entry.kind, entry.count) + place
        values += entry.data.ljust(len(entry.data) + len(entry.data) % 2, b"\0") if long else b""
    return directory + struct.pack("<I", 0) + values


def pointer(number: int, at: int) -> Entry:
    """To another directory."""
    return Entry(number, 4, 1, struct.pack("<I", at))


def of_jpeg(metadata: Metadata, height: int, width: int) -> Metadata:
    """With what Exif 2.32 wants of every JPEG besides: sizes, 72 pixels an inch, and the order of its components."""
    first = [fractions(282, [72], 1), fractions(283, [72], 1), short(296, 2), short(531, 1)]
    sizes = [Entry(number, 4, 1, struct.pack("<I", side)) for number, side in ((40962, width), (40963, height))]
    order = Entry(37121, 7, 4, bytes((1, 2, 3, 0)))
    added = [{entry.number: entry for entry in entries} for entries in (first, [*sizes, order])]
    return replace(metadata, main=dict(metadata.main) | added[0], exif=dict(metadata.exif) | added[1])


def _short_enough(metadata: Metadata) -> tuple[dict[int, Entry], list[int]]:
    """The EXIF directory without its longest values, so that a segment of a JPEG holds all directories; and the sizes of these."""
    exif, gps = dict(metadata.exif), metadata.gps
    while True:
        first = [*metadata.main.values(), pointer(EXIF_POINTER, 0), *([pointer(GPS_POINTER, 0)] if gps else [])]
        size = [len(packed(entries, 0)) for entries in (first, exif.values(), gps.values() if gps else ())]
        if sum(size) + 14 <= MOST_IN_JPEG or not exif:
            return exif, size
        exif.pop(max(exif, key=lambda number: len(exif[number].data)))


def left_out_of_jpeg(metadata: Metadata) -> list[str]:
    """What does not fit into a JPEG, in words."""
    lost = sorted(set(metadata.exif) - set(_short_enough(metadata)[0]))
    dropped = [f"tag {number} of its EXIF directory, {len(metadata.exif[number].data)} bytes, which no JPEG holds" for number in lost]
    return dropped + ([f"its XMP of {len(metadata.xmp)} bytes, which no JPEG holds"] if len(metadata.xmp) > MOST_IN_JPEG else [])


def blob(metadata: Metadata) -> bytes:
    """`Exif`, as JPEG and PNG hold it, without what `left_out_of_jpeg` tells."""
    (exif, size), gps = _short_enough(metadata), metadata.gps
    at = 8, 8 + size[0], 8 + size[0] + size[1]
    first = [*metadata.main.values(), pointer(EXIF_POINTER, at[1]), *([pointer(GPS_POINTER, at[2])] if gps else [])]
    behind = packed(gps.values(), at[2]) if gps else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + packed(first, at[0]) + packed(exif.values(), at[1]) + behind


def iptc_segment(metadata: Metadata) -> bytes:
    """The segment APP13 in which readers of JPEG look for IPTC, Photoshop's resource 0x0404; empty where there is none, or too much."""
    iptc = metadata.main[IPTC].data if IPTC in metadata.main else b""
    if not 0 < len(iptc) <= MOST_IN_JPEG:
        return b""
    body = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return struct.pack(">HH", 0xFFED, 2 + len(body)) + body


def first_tags(metadata: Metadata) -> list[Any]:
    """For tifffile: the entries of the first directory, XMP, and places for the pointers, see `append_directories`."""
    tags: list[Any] = []
    for entry in metadata.main.values():
        letters = RATIONALS.get(entry.kind)
        value = struct.unpack(f"<{2 * entry.count}{letters[1]}", entry.data) if letters else entry.data
        tags.append((entry.number, letters or entry.kind, entry.count, value, True))
    if metadata.xmp:
        tags.append((XMP, "B", len(metadata.xmp), metadata.xmp, True))
    wanted = {EXIF_POINTER: metadata.exif, GPS_POINTER: metadata.gps}
    return tags + [(PLACEHOLDERS[number], "I", 1, 0, True) for number, entries in wanted.items() if entries]


def append_directories(path: Path, metadata: Metadata) -> None:
    """Add the EXIF and GPS directories, which tifffile does not write, to a little-endian TIFF, and point to them."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        tags = file.pages.first.tags
        places = {number: tags[placeholder].offset for number, placeholder in PLACEHOLDERS.items() if placeholder in tags}
        below = tags[SUB_IFDS].offset if SUB_IFDS in tags else None
    with path.open("rb+") as file:
        for number, entries in ((EXIF_POINTER, metadata.exif), (GPS_POINTER, metadata.gps)):
            if number in places:
                start = file.seek(0, 2)
                start += file.write(b"\0" * (start % 2))
                file.write(packed(entries.values(), start))
                file.seek(places[number])
                file.write(struct.pack("<HHII", number, 4, 1, start))
        if below is not None:  # tifffile writes the type IFD, which few readers of EXIF know
            file.seek(below)
            file.write(struct.pack("<HH", SUB_IFDS, 4))
