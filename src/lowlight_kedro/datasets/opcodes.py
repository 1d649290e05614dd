"""What a DNG asks to be done with its photosites: opcode lists (Adobe DNG specification 1.7.1, chapter 7). Big-endian in every file."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.datasets.tags import OPCODE_LISTS, Tags

CONSTANT, LIST = 4, 5
NAMES = {
    1: "WarpRectilinear", 2: "WarpFisheye", 3: "FixVignetteRadial", CONSTANT: "FixBadPixelsConstant", LIST: "FixBadPixelsList",
    6: "TrimBounds", 7: "MapTable", 8: "MapPolynomial", 9: "GainMap", 10: "DeltaPerRow", 11: "DeltaPerColumn", 12: "ScalePerRow",
    13: "ScalePerColumn", 14: "WarpRectilinear2",
}  # fmt: skip


class Opcode(NamedTuple):
    """One of a list: its number and its parameters."""

    number: int
    data: bytes

    @property
    def name(self) -> str:
        """By the specification."""
        return NAMES.get(self.number, f"opcode {self.number}")


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
        kind, _, _, size = struct.unpack_from(">4I", data, at)
        if len(data) < at + 16 + size:
            raise ValueError(f"its number {number + 1} of {count} is cut short")
        yield Opcode(kind, data[at + 16 : at + 16 + size])
        at += 16 + size


def _listed(data: bytes, found: NDArray[np.bool_], top: int, left: int) -> None:
    """Mark the points and rectangles of a FixBadPixelsList; those beyond the visible area are nobody's loss."""
    if len(data) < 12:
        raise ValueError("FixBadPixelsList is cut short")
    _, points, rectangles = struct.unpack_from(">3I", data)
    if len(data) < 12 + 8 * points + 16 * rectangles:
        raise ValueError(f"FixBadPixelsList tells of {points} points and {rectangles} rectangles, and holds fewer")
    sites = np.frombuffer(data, ">u4", 2 * points, 12).reshape(points, 2).astype(np.int64) - (top, left)
    inside = sites[((sites >= 0) & (sites < found.shape)).all(axis=1)]
    found[inside[:, 0], inside[:, 1]] = True
    for first, start, last, end in np.frombuffer(data, ">u4", 4 * rectangles, 12 + 8 * points).reshape(rectangles, 4).astype(np.int64):
        found[max(first - top, 0) : max(last - top, 0), max(start - left, 0) : max(end - left, 0)] = True


def _heard(number: int, data: bytes, mosaic: NDArray[np.uint16], found: NDArray[np.bool_], top: int, left: int) -> Iterator[str]:
    """Mark what list `number` calls defective; what else it asks for, and where it is torn."""
    try:
        for opcode in opcodes(data):
            if number == 1 and opcode.number == LIST:
                _listed(opcode.data, found, top, left)
            elif number == 1 and opcode.number == CONSTANT and len(opcode.data) == 8:
                found |= mosaic == struct.unpack_from(">I", opcode.data)[0]
            else:
                yield f"{opcode.name} not done"
    except ValueError as error:
        yield f"OpcodeList{number} torn: {error}"


def told_by(tags: Tags, mosaic: NDArray[np.uint16], top: int, left: int) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Photosites (H, W) of the visible area `mosaic` that the file calls defective, None = none; and what it asks for that is not done.

    Args:
        top, left: where the visible area begins in the image of the file.
    """
    values = {number: tags.find(tag) for number, tag in enumerate(OPCODE_LISTS, start=1)}
    lists = {
        number: bytes(value) for number, value in values.items()
        if isinstance(value, tuple) and all(isinstance(one, int) and 0 <= one < 256 for one in value)
    }  # fmt: skip
    if not lists:
        return None, ()
    found, undone = np.zeros(mosaic.shape, bool), dict[str, None]()
    for number, data in lists.items():
        undone |= dict.fromkeys(_heard(number, data, mosaic, found, top, left))
    return found if found.any() else None, tuple(undone)


def bad_pixels_list(defects: NDArray[np.bool_], top: int, left: int) -> bytes:
    """An OpcodeList1 that tells of these photosites; the inverse of `told_by`."""
    sites = np.argwhere(defects) + np.array([top, left])
    data = struct.pack(">3I", 0, len(sites), 0) + sites.astype(">u4").tobytes()
    return struct.pack(">5I", 1, LIST, 0x01030000, 1, len(data)) + data  # version 1.3, optional
