"""Is a tile what training needs? One function per question, each answer a kind and a sentence."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CONTENT = ("constant", "saturated", "duplicated")


@dataclass(frozen=True)
class Problem:
    """What is wrong with which tile (or scene); `kind` is one word."""

    tile_id: str
    kind: str
    message: str


def check_form(tile_id: str, tile: NDArray, shape: tuple[int, int, int]) -> list[Problem]:
    """Type, shape, finiteness and range of one tile, in the tile domain [-1, 1]."""
    if tile.dtype != np.float32:
        return [Problem(tile_id, "dtype", f"dtype is {tile.dtype}, expected float32")]
    if tile.shape != shape:
        return [Problem(tile_id, "shape", f"shape is {tile.shape}, expected {shape}")]
    bad = int(np.size(tile) - np.isfinite(tile).sum())
    if bad:
        return [Problem(tile_id, "finite", f"{bad} values are not finite")]
    if tile.min() < -1 or tile.max() > 1:
        return [Problem(tile_id, "range", f"values span [{tile.min():g}, {tile.max():g}], expected within [-1, 1]")]
    return []


def check_stack(name: str, stack: NDArray, shape: tuple[int, int, int]) -> list[Problem]:
    """Type and shape of the tiles of one stack (N, C, S, S)."""
    if stack.dtype not in (np.uint16, np.float32):
        return [Problem(name, "dtype", f"dtype is {stack.dtype}, expected uint16 or float32")]
    if stack.shape[1:] != shape:
        return [Problem(name, "shape", f"shape is {stack.shape}, expected (N, {', '.join(map(str, shape))})")]
    return []


def check_index(tile_id: str, index: int, length: int) -> list[Problem]:
    """Whether a stack of `length` tiles has number `index`."""
    if 0 <= index < length:
        return []
    return [Problem(tile_id, "index", f"is number {index} of a stack of {length}, expected 0 to {length - 1}")]


def check_places(table: pd.DataFrame) -> list[Problem]:
    """Places in stacks that more than one tile of a `tile_table` claims."""
    stacked = table[table["stack"].notna()]
    shared = stacked[stacked.duplicated(["stack", "index"], keep=False)]
    return [
        Problem(later, "place", f"is number {index} of {stack}, and so is {first}")
        for (stack, index), (first, *others) in shared.groupby(["stack", "index"], observed=True, sort=False)["tile_id"]
        for later in others if later != first
    ]  # fmt: skip


def check_unlisted(name: str, listed: Iterable[int], length: int) -> list[Problem]:
    """Tiles of a stack that the metadata does not list."""
    unlisted = sorted(set(range(length)) - set(listed))
    if not unlisted:
        return []
    shown = ", ".join(map(str, unlisted[:5])) + (", ..." if len(unlisted) > 5 else "")
    return [Problem(name, "extra", f"{len(unlisted)} of its {length} tiles are not in the metadata: {shown}")]


def check_content(tile_id: str, tile: NDArray, *, min_std: float, max_saturated: float) -> list[Problem]:
    """Whether a well-formed tile shows anything."""
    if (std := float(tile.std())) < min_std:
        return [Problem(tile_id, "constant", f"standard deviation is {std:g}, expected at least {min_std:g}")]
    if (saturated := saturated_fraction(tile)) > max_saturated:
        return [Problem(tile_id, "saturated", f"{saturated:.1%} of the pixels are saturated, expected at most {max_saturated:.1%}")]
    return []


def saturated_fraction(tile: NDArray) -> float:
    """Fraction of pixels of a tile (C, H, W) with a channel at white."""
    return float((tile >= 1).any(axis=0).mean())


def statistics(tile: NDArray) -> dict[str, float]:
    """What the index and the checks tell of a tile, in the tile domain."""
    figures = {"mean": tile.mean(), "std": tile.std(), "min": tile.min(), "max": tile.max()}
    return {name: float(value) for name, value in figures.items()} | {"saturated_fraction": saturated_fraction(tile)}


def check_duplicates(digests: pd.Series) -> list[Problem]:
    """Tiles with the same bytes as an earlier one; `digests` has the hash of each by its tile_id."""
    again = digests[digests.duplicated()]
    first = digests[digests.isin(again)].drop_duplicates().reset_index().set_index(digests.name)["tile_id"]
    return [Problem(str(name), "duplicated", f"has the same content as {first[found]}") for name, found in again.items()]


def check_names(table: pd.DataFrame) -> list[Problem]:
    """Names of a `tile_table` that stand there more than once."""
    counts = Counter(table["tile_id"][table["tile_id"].duplicated(keep=False)])
    return [Problem(name, "name", f"stands {count} times in the metadata") for name, count in counts.items()]


def check_splits(table: pd.DataFrame) -> list[Problem]:
    """Scenes whose tiles in a `tile_table` are in more than one split."""
    told = table[["scene_id", "split"]].dropna().drop_duplicates()
    return [
        Problem(scene, "split", f"the scene is in several splits: {', '.join(sorted(found))}")
        for scene, found in told.groupby("scene_id", observed=True, sort=False)["split"] if len(found) > 1
    ]  # fmt: skip


def digest(tile: NDArray) -> str:
    """A hash of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(tile).tobytes()).hexdigest()[:16]
