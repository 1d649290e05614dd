"""What of a raw's metadata is carried as it is: XMP packets beside and inside raws (ISO 16684-1), and makers' notes, as DNGs keep them.

The offsets of makers' notes count from the file that they were made for. DNG 1.7.1 knows two ways to keep them all the same:
MakerNoteSafety says that a MakerNote holds anywhere, and DNGPrivateData is to be carried by whoever rewrites a DNG. There Adobe's converter
keeps notes of other raws with their byte order and their first place, as exiftool and LibRaw read them: `Adobe`, 0, `MakN`, the length,
both, and the notes.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from lowlight_kedro.datasets.tags import DNG_VERSION, Entry

LARGEST_PACKET = 1 << 20  # bytes of a packet
PACKET = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>%b<?xpacket end="w"?>'  # of XMP within a file; sidecars need none
DECLARATION = re.compile(rb"^(?:\xef\xbb\xbf)?<\?xml[^>]*\?>\s*")
DARKTABLES_STEPS = re.compile(rb'<darktable:(\w+)[^>]*?(?:/>|>.*?</darktable:\1>)|(?<=\s)darktable:\w+\s*=\s*"[^"]*"', re.DOTALL)


def whole_packet(data: bytes) -> bytes:
    """An XMP packet that is whole, wrapped as files want it, without the steps that darktable took with the raw: they are not for what is
    restored.

    Raises:
        ValueError: it is not.
    """
    trimmed = data.strip(b"\0 \r\n\t")
    if len(data) > LARGEST_PACKET or not trimmed:
        raise ValueError(f"it has {len(data)} bytes")
    try:
        root = ElementTree.fromstring(trimmed)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if not root.tag.endswith(("}xmpmeta", "}RDF", "}xapmeta")):
        raise ValueError(f"it begins with {root.tag}")
    packet = DARKTABLES_STEPS.sub(b"", DECLARATION.sub(b"", trimmed))
    return packet if packet.startswith(b"<?xpacket") else PACKET % packet


def packet_of(path: Path, embedded: bytes) -> tuple[bytes, list[str]]:
    """The packet of a sidecar beside the raw, which was written last, else the embedded one; and what is wrong with them."""
    lost: list[str] = []
    for place in (path.with_suffix(path.suffix + ".xmp"), path.with_suffix(".xmp"), path.with_suffix(".XMP")):
        if place.is_file():
            try:
                return whole_packet(place.read_bytes()), lost
            except (ValueError, OSError) as error:
                lost.append(f"the XMP of {place.name} ({error})")
    try:
        return (whole_packet(embedded), lost) if embedded.strip(b"\0 ") else (b"", lost)
    except ValueError as error:
        return b"", [*lost, f"its XMP ({error})"]


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
