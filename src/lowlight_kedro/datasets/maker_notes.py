"""Makers' notes of a raw, as a DNG can keep them.

Their offsets count from the file that they were made for. DNG 1.7.1 knows two ways to keep them all the same: MakerNoteSafety says that a
MakerNote holds anywhere, and DNGPrivateData is to be carried by whoever rewrites a DNG. There Adobe's converter keeps notes of other raws
with their byte order and their first place, as exiftool and LibRaw read them: `Adobe`, 0, `MakN`, the length, both, and the notes.
"""

import struct
from collections.abc import Mapping

from lowlight_kedro.datasets.tags import DNG_VERSION, Entry

MAKER_NOTE, DNG_PRIVATE, NOTE_SAFETY = 37500, 50740, 50741
SAFE = struct.pack("<H", 1)
NOTES, NOTES_IN_DNG = "maker notes", "maker notes (only DNGs hold them)"  # what is told to be lost


def as_adobe_keeps_them(notes: bytes, order: str, at: int) -> Entry:
    """DNGPrivateData with the notes that lay `at` bytes behind the beginning of a TIFF structure, `order` being `<` or `>`."""
    body = (b"II" if order == "<" else b"MM") + struct.pack(">I", at) + notes
    data = b"Adobe\0MakN" + struct.pack(">I", len(body)) + body
    return Entry(DNG_PRIVATE, 1, len(data), data)


def kept_in_dng(main: Mapping[int, Entry], exif: Mapping[int, Entry], order: str) -> dict[int, Entry]:
    """What a DNG keeps of the notes in the first and the EXIF directory of a raw: DNGPrivateData, MakerNote and MakerNoteSafety.

    Of other raws DNGPrivateData is not read: Sony means something else by the same number.

    Args:
        main: its first directory, little-endian.
        exif: its EXIF directory, little-endian.
        order: the byte order of the file itself, in which its notes are written.
    """
    notes, safety = exif.get(MAKER_NOTE), main.get(NOTE_SAFETY)
    kept = {DNG_PRIVATE: main[DNG_PRIVATE]} if {DNG_VERSION, DNG_PRIVATE} <= main.keys() else {}
    if notes is None:
        return kept
    if DNG_VERSION in main and safety is not None and safety.data == SAFE:
        return kept | {MAKER_NOTE: notes, NOTE_SAFETY: safety}
    return kept or {DNG_PRIVATE: as_adobe_keeps_them(notes.data, order, notes.at)}
