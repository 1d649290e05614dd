"""XMP packets beside and inside raws, as they are carried to other files (ISO 16684-1)."""

import re
from pathlib import Path
from xml.etree import ElementTree

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
