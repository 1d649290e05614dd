"""What a DNG asks to be done with its photosites: opcode lists (Adobe DNG specification 1.7.1, chapter 7). Big-endian in every file.

Of list 1, on the stored values, the defective photosites are heard; of list 2, on linear photosites, the gain maps. List 3 is for the
demosaiced picture (distortion, vignetting): it is carried into the files that editors open.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.black import LOSSY
from lowlight_kedro.datasets.tags import ACTIVE_AREA, COMPRESSION, MAX_BYTES, OPCODE_LISTS, Tags
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa
from lowlight_kedro.sensor.frame import LensCorrections, between

CONSTANT, LIST, MAP_POLYNOMIAL, GAIN_MAP = 4, 5, 8, 9
NAMES = {
    1: "WarpRectilinear", 2: "WarpFisheye", 3: "FixVignetteRadial", CONSTANT: "FixBadPixelsConstant", LIST: "FixBadPixelsList",
    6: "TrimBounds", 7: "MapTable", MAP_POLYNOMIAL: "MapPolynomial", GAIN_MAP: "GainMap", 10: "DeltaPerRow", 11: "DeltaPerColumn",
    12: "ScalePerRow", 13: "ScalePerColumn", 14: "WarpRectilinear2",
}  # fmt: skip
VERSION, OPTIONAL = 0x01030000, 1  # DNG 1.3, which brought opcodes; the flag of one that a reader may leave out
GAIN_HEAD = ">10I4dI"  # area, first plane and their number, pitches, points, spacing, origin, planes of the map
LARGEST_GAIN = 64.0  # of a gain map; those of phones reach 5 in the corners


class Opcode(NamedTuple):
    """One of a list: its number, the DNG version that brought it, its flags and its parameters."""

    number: int
    version: int
    flags: int
    data: bytes

    @property
    def name(self) -> str:
        """By the specification."""
        return NAMES.get(self.number, f"opcode {self.number}")


@dataclass(frozen=True)
class Area:
    """Where the visible photosites lie: from (top, left) of the image of the file, and from (down, right) of the active area of `size`."""

    top: int
    left: int
    down: int
    right: int
    size: tuple[int, int]

    @classmethod
    def of(cls, tags: Tags, sizes: Any) -> "Area":
        """By LibRaw's `sizes` and the file's ActiveArea."""
        whole = (0, 0, sizes.raw_height, sizes.raw_width)
        area = (tags.image(sizes.raw_height, sizes.raw_width) or {}).get(ACTIVE_AREA, whole)
        valid = len(area) == 4 and np.isfinite(area).all() and area[0] < area[2] and area[1] < area[3]
        top, left, bottom, right = (int(side) for side in area) if valid else whole
        down, over = sizes.top_margin - top, sizes.left_margin - left
        return cls(sizes.top_margin, sizes.left_margin, down, over, (bottom - top, right - left))


@dataclass
class Heard:
    """What the lists tell.

    Attributes:
        defects: photosites (H, W) that the file calls defective, None = none.
        shading: gains of the photosites, of the shape of the mosaic; None: none.
        lens: what is to be done with the demosaiced picture.
        undone: what else the file asks for, and what is unusable, each once, in words.
    """

    defects: NDArray[np.bool_] | None = None
    shading: NDArray[np.float32] | None = None
    lens: LensCorrections | None = None
    undone: dict[str, None] = field(default_factory=dict)


def opcodes(data: bytes) -> Iterator[Opcode]:
    """Those of a list, in order.

    Raises:
        ValueError: the list ends in the middle of one.
    """
    if len(data) < 4:
        raise ValueError("it is shorter than its own count")
    (count,), at = struct.unpack_from(">I", data), 4
    for number in range(count):
        if len(data) < at + 16:
            raise ValueError(f"it ends before number {number + 1} of {count}")
        kind, version, flags, size = struct.unpack_from(">4I", data, at)
        if len(data) < at + 16 + size:
            raise ValueError(f"its number {number + 1} of {count} is cut short")
        yield Opcode(kind, version, flags, data[at + 16 : at + 16 + size])
        at += 16 + size


def _listed(data: bytes, found: NDArray[np.bool_], area: Area) -> None:
    """Mark the points and rectangles of a FixBadPixelsList; those beyond the visible area are nobody's loss."""
    if len(data) < 12:
        raise ValueError("FixBadPixelsList is cut short")
    _, points, rectangles = struct.unpack_from(">3I", data)
    if len(data) < 12 + 8 * points + 16 * rectangles:
        raise ValueError(f"FixBadPixelsList tells of {points} points and {rectangles} rectangles, and holds fewer")
    top, left = area.top, area.left
    sites = np.frombuffer(data, ">u4", 2 * points, 12).reshape(points, 2).astype(np.int64) - (top, left)
    inside = sites[((sites >= 0) & (sites < found.shape)).all(axis=1)]
    found[inside[:, 0], inside[:, 1]] = True
    for first, start, last, end in np.frombuffer(data, ">u4", 4 * rectangles, 12 + 8 * points).reshape(rectangles, 4).astype(np.int64):
        found[max(first - top, 0) : max(last - top, 0), max(start - left, 0) : max(end - left, 0)] = True


def _along(first: int, last: int, pitch: int, start: int, visible: int) -> NDArray[np.int64]:
    """Lines of the active area that a gain map holds for and that are visible."""
    lines = np.arange(first, min(last, start + visible), pitch, dtype=np.int64)
    return lines[lines >= start]


def _multiplied(data: bytes, gains: NDArray[np.float32], area: Area) -> None:
    """Multiply `gains` (planes, H, W) by a GainMap: bilinear between points that are placed in fractions of the active area.

    Raises:
        ValueError: it is cut short, or holds what cannot be.
    """
    head = struct.calcsize(GAIN_HEAD)
    if len(data) < head:
        raise ValueError("GainMap is cut short")
    top, left, bottom, right, plane, planes, row_pitch, column_pitch, down, over, *places, map_planes = struct.unpack_from(GAIN_HEAD, data)
    if not 0 < 4 * down * over * map_planes <= len(data) - head:
        raise ValueError(f"GainMap tells of {down} x {over} points of {map_planes} planes, and holds {(len(data) - head) // 4} values")
    points = np.frombuffer(data, ">f4", down * over * map_planes, head).reshape(down, over, map_planes).astype(np.float64)
    spacing, origin = (1.0 if down == 1 else places[0], 1.0 if over == 1 else places[1]), places[2:]
    if not (np.isfinite(points).all() and points.min() > 0 and points.max() <= LARGEST_GAIN):
        raise ValueError(f"GainMap holds gains that no lens needs, expected them above 0 and up to {LARGEST_GAIN:g}")
    if not (np.isfinite([*spacing, *origin]).all() and min(spacing) > 0 and min(row_pitch, column_pitch, planes) > 0):
        raise ValueError("GainMap has a pitch, spacing or number of planes that is not above 0")
    rows = _along(top, bottom, row_pitch, area.down, gains.shape[1])
    columns = _along(left, right, column_pitch, area.right, gains.shape[2])
    if not len(rows) or not len(columns) or plane >= len(gains):
        raise ValueError(
            f"GainMap for rows {top} to {bottom}, columns {left} to {right}, plane {plane} lies outside of the {gains.shape[1]} x "
            f"{gains.shape[2]} photosites of {len(gains)} planes"
        )
    at = [
        ((lines + 0.5) / side - start) / step for lines, side, start, step in zip((rows, columns), area.size, origin, spacing, strict=True)
    ]
    for number in range(plane, min(plane + planes, len(gains))):
        one = points[..., min(number - plane, map_planes - 1)]
        gains[number][np.ix_(rows - area.down, columns - area.right)] *= between(between(one, at[0], 0), at[1], 1)


def _heard(number: int, data: bytes, mosaic: NDArray[np.uint16], area: Area, heard: Heard, done: set[tuple[int, int]]) -> Iterator[str]:
    """Hear lists 1 and 2; what else they ask for that is not `done`, {(list, opcode)}, and why one is unusable."""
    try:
        for opcode in opcodes(data):
            if number == 1 and opcode.number in (LIST, CONSTANT) and mosaic.ndim == 2:
                found = np.zeros(mosaic.shape, bool) if heard.defects is None else heard.defects
                if opcode.number == LIST:
                    _listed(opcode.data, found, area)
                elif len(opcode.data) == 8:
                    found |= mosaic == struct.unpack_from(">I", opcode.data)[0]
                heard.defects = found if found.any() else None
            elif number == 2 and opcode.number == GAIN_MAP:
                heard.shading = np.ones(mosaic.shape, np.float32) if heard.shading is None else heard.shading
                _multiplied(opcode.data, heard.shading.reshape(-1, *mosaic.shape[-2:]), area)
            elif (number, opcode.number) not in done:
                yield f"{opcode.name} not done"
    except ValueError as error:
        if number == 2:
            heard.shading = None  # what holds for one colour of four would be a cast
        yield f"OpcodeList{number} unusable: {error}"


def _lens(data: bytes) -> LensCorrections | None:
    """List 3 as it is: an editor may know opcodes that are not known here.

    Raises:
        ValueError: the list is torn.
    """
    found = list(opcodes(data))
    version = max([VERSION, *(opcode.version for opcode in found if not opcode.flags & OPTIONAL)])
    return LensCorrections(tuple(dict.fromkeys(opcode.name for opcode in found)), data, version.to_bytes(4, "big")) if found else None


def heard_of(tags: Tags, mosaic: NDArray[np.uint16], area: Area) -> Heard:
    """What the opcode lists of a file say of its visible photosites `mosaic`, (H, W) or (3, H, W)."""
    heard, lossy = Heard(), tags.picture.get(COMPRESSION, (1,))[:1] == (LOSSY,)
    done = {(2, MAP_POLYNOMIAL)} if lossy else set()
    for number, tag in enumerate(OPCODE_LISTS, start=1):
        if tag in tags.too_long:
            heard.undone[f"OpcodeList{number} unusable: it has more than {MAX_BYTES} bytes"] = None
        value = tags.find(tag)
        if not isinstance(value, tuple) or not all(isinstance(one, int) and 0 <= one < 256 for one in value):
            continue
        if number < 3:
            heard.undone |= dict.fromkeys(_heard(number, bytes(value), mosaic, area, heard, done))
            continue
        try:
            heard.lens = _lens(bytes(value))
        except ValueError as error:
            heard.undone[f"OpcodeList3 unusable: {error}"] = None
    return heard


def _list_of(parts: list[tuple[int, bytes]]) -> bytes:
    """A list of (number, parameters), each optional."""
    return struct.pack(">I", len(parts)) + b"".join(
        struct.pack(">4I", number, VERSION, OPTIONAL, len(data)) + data for number, data in parts
    )  # fmt: skip


def bad_pixels_list(defects: NDArray[np.bool_], top: int, left: int) -> bytes:
    """An OpcodeList1 that tells of these photosites; the inverse of `heard_of`."""
    sites = np.argwhere(defects) + np.array([top, left])
    return _list_of([(LIST, struct.pack(">3I", 0, len(sites), 0) + sites.astype(">u4").tobytes())])


def gain_maps(shading: NDArray[np.float32], cfa: Cfa) -> bytes:
    """An OpcodeList2 that tells of these gains (H, W), a map for each place of the pattern, a point for each photosite."""
    (height, width), period, parts = shading.shape, len(cfa), list[tuple[int, bytes]]()
    assert cfa != UNFILTERED
    for top in range(period):
        for left in range(period):
            points = shading[top::period, left::period]
            head = (top, left, height, width, 0, 1, period, period, *points.shape)
            places = (period / height, period / width, (top + 0.5) / height, (left + 0.5) / width)
            parts.append((GAIN_MAP, struct.pack(GAIN_HEAD, *head, *places, 1) + points.astype(">f4").tobytes()))
    return _list_of(parts)
