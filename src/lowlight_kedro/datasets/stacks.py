"""Stacks: many tiles in one `.npy` file, 16 bits a value, read through the page cache without parsing.

A tile value x in [-1, 1] is stored as u = round((x + 1) / 2 * 65535), so -1 and 1 are exact, every other value is
at most half a step of 2 / 65535 away (docs/decisions/0007-tile-storage.md says why that is enough).
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path

LEVELS = 65535
STEP = 2 / LEVELS  # of the stored values, in the tile domain
OPEN_STACKS = 256  # files kept open by one reader; well below the usual limit of 1024


def encode(tiles: NDArray) -> NDArray[np.uint16]:
    """Tile domain [-1, 1] to 16 bits, rounded to nearest; any shape. What is 16 bits already is handed on as it is.

    Raises:
        ValueError: a value is not finite or outside [-1, 1].
    """
    if tiles.dtype == np.uint16:
        return tiles
    low, high = tiles.min(initial=1), tiles.max(initial=-1)
    if not (low >= -1 and high <= 1):
        raise ValueError(f"values span [{low:g}, {high:g}], expected finite values within [-1, 1]")
    return np.rint((tiles + 1) * np.float32(LEVELS / 2)).astype(np.uint16)


def decode(stored: Any, out: NDArray[np.float32] | None = None) -> Any:
    """What a stack holds (NumPy array or torch tensor, on any device) to float32 in the tile domain.

    16 bits are scaled, floats are handed on as they are. Array and tensor give the same bits. `out` takes the
    values of an array.
    """
    if not isinstance(stored, np.ndarray):
        return stored if stored.is_floating_point() else stored.float().mul_(STEP).sub_(1)
    if out is None and stored.dtype == np.float32:
        return stored
    out = np.empty(stored.shape, np.float32) if out is None else out
    for values, part in zip(out, stored, strict=True) if stored.ndim == 4 else [(out, stored)]:  # one tile fits the cache
        np.copyto(values, part)
        if part.dtype == np.uint16:
            values *= np.float32(STEP)
            values -= 1
    return out


def write_stack(path: str | Path, tiles: NDArray) -> None:
    """Write tiles (N, C, S, S), float32 in the tile domain or encoded uint16, as one `.npy` file (format 1.0).

    Raises:
        DatasetError: the tiles cannot be encoded or the file not written; what was there before stays.
    """
    if tiles.ndim != 4 or not len(tiles) or tiles.dtype not in (np.float32, np.uint16):
        raise DatasetError(f"{path}: a stack is float32 or uint16 (N, C, S, S) with N > 0, got {tiles.dtype} {tiles.shape}")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": tiles.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for index, tile in enumerate(tiles):
            try:
                stored = encode(tile)
            except ValueError as error:
                raise DatasetError(f"tile {index}: {error}") from None  # `atomic_path` adds the file
            file.write(stored.astype("<u2", copy=False).tobytes())


def open_stack(path: str | Path) -> NDArray:
    """The tiles of a stack as a read-only array over the file: only what is indexed is read.

    Raises:
        DatasetError: the file is missing or torn, holds Python objects, or is no `.npy` file of tiles (N, C, S, S).
    """
    path = Path(path)
    try:
        stack = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise DatasetError(f"{path}: not a readable stack ({reason}); run preprocessing and validation again") from error
    if stack.ndim != 4 or not stack.flags.c_contiguous:
        raise DatasetError(f"{path}: an array {stack.shape}, expected tiles (N, C, S, S) in C order")
    size = path.stat().st_size
    if size != stack.offset + stack.nbytes:
        raise DatasetError(f"{path}: {size} bytes, its header says {stack.offset + stack.nbytes}; run preprocessing and validation again")
    return np.asarray(stack)


def holds(path: str | Path, tiles: NDArray) -> bool:
    """Whether the file is a whole stack with just these tiles (as `write_stack` would write them)."""
    try:
        stack = open_stack(path)
    except DatasetError:
        return False
    if stack.dtype != np.uint16 or stack.shape != tiles.shape:
        return False
    return all(np.array_equal(old, encode(new)) for old, new in zip(stack, tiles, strict=True))


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DatasetError(
            f"{path}: not a readable stack ({type(error).__name__}: {error.strerror}); put it back, or run preprocessing and "
            "validation again"
        ) from error
    return found.st_size, found.st_mtime_ns


def _opened(path: str) -> tuple[tuple[int, int], NDArray]:
    return _size_and_time(path), open_stack(path)


class OpenStacks:
    """`open_stack` that keeps the last `limit` files open; a copy in another process opens its own."""

    def __init__(self, limit: int = OPEN_STACKS) -> None:
        self._limit = limit
        self._open = lru_cache(limit)(_opened)

    def __call__(self, path: str) -> NDArray:
        """See `open_stack`. Every call looks at size and time of the file: reading what was cut off would kill the process.

        Raises:
            DatasetError: the file is gone, or another than when it was opened.
        """
        opened, stack = self._open(path)
        if (now := _size_and_time(path)) != opened:
            raise DatasetError(
                f"{path}: written to while it was read: got {now[0]} bytes, expected the {opened[0]} bytes that were opened, untouched; "
                "run preprocessing and validation again, then what failed"
            )
        return stack

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return OpenStacks, (self._limit,)
