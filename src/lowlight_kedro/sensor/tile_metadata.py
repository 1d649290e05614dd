"""What the metadata of tiles says, in our layout and in the predecessor's, and whether a tile is what training needs.

`{"tiles": [...]}` or `{"files": [{..., "tiles": ...}]}`, fields of the file inherited. The tiles of a file are a list of records, or the
columns of a table: a list has a value for each tile, anything else counts for all of them. Columns are what the pipelines write: a
million records would be gigabytes. Of checks, one function answers one question, by a kind and a sentence.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CLEAN_TYPES, NOISY_TYPES = ("long", "clean"), ("short", "noisy")
SHORT_EXPOSURE_MARK = "_0."
INHERITED = ("split", "scene_id", "data_type", "is_clean")

Metadata = Mapping[str, Any]


def _groups(metadata: Metadata) -> list[tuple[dict[str, Any], Any]]:
    """What the tiles of each file inherit, and its tiles as they stand; tiles without a file first.

    Raises:
        ValueError: there are neither tiles nor files.
    """
    if "tiles" not in metadata and "files" not in metadata:
        raise ValueError("metadata must hold `tiles: [...]` or `files: [{..., tiles: [...]}]`, got keys: " + ", ".join(metadata))
    files = [({key: file[key] for key in INHERITED if key in file}, file.get("tiles", [])) for file in metadata.get("files", [])]
    return [({}, metadata.get("tiles", [])), *files]


def _column(field: str, inherited: Mapping[str, Any], tiles: Any) -> list[Any]:
    """A value for each tile of a file, None where it has none."""
    if not isinstance(tiles, Mapping):
        return [tile.get(field, inherited.get(field)) for tile in tiles]
    values = tiles.get(field, inherited.get(field))
    return values if isinstance(values, list) else [values] * len(tiles["tile_id"])


def tile_table(metadata: Metadata) -> pd.DataFrame:
    """All tiles: `tile_id`, where they lie (`stack` and `index`, -1 without; `pt_path` or ""), and what is `INHERITED`.

    Some 100 bytes a tile: what many tiles share is a category. What else the metadata says of tiles is not in it.

    Raises:
        ValueError: there are neither tiles nor files, a tile has no `tile_id`, or a `stack` without a whole number as `index`.
    """
    groups = _groups(metadata)
    columns = {
        field: [value for inherited, tiles in groups for value in _column(field, inherited, tiles)]
        for field in ("tile_id", "index", "pt_path", "stack", *INHERITED)
    }
    for number, (name, stack, index) in enumerate(zip(columns["tile_id"], columns["stack"], columns["index"], strict=True)):
        if not name:
            raise ValueError(f"tile number {number} of the metadata has no tile_id")
        if stack and type(index) is not int:
            raise ValueError(f"tile {name}: `index` must be its place in {stack}, 0, 1, ..., got {index!r}")
    places = zip(columns["index"], columns["stack"], strict=True)
    return pd.DataFrame({
        "tile_id": columns["tile_id"],
        "index": np.array([index if stack else -1 for index, stack in places], np.int64),
        "pt_path": [path or "" for path in columns["pt_path"]],
        "stack": pd.Categorical([stack or None for stack in columns["stack"]]),
        **{field: pd.Categorical(columns[field]) for field in INHERITED},
    })  # fmt: skip


def list_tiles(metadata: Metadata) -> list[dict[str, Any]]:
    """All tiles as records, everything that is said of each; errors as of `tile_table`, which takes a tenth of the memory."""
    tile_table(metadata)
    tiles = []
    for inherited, group in _groups(metadata):
        if isinstance(group, Mapping):
            fields = [key for key in group if key not in inherited]
            rows = zip(*(_column(field, {}, group) for field in fields), strict=True)
            group = [dict(zip(fields, row, strict=True)) for row in rows]
        tiles += [inherited | tile for tile in group]
    return tiles


def replace_tiles(metadata: Metadata, tiles: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The metadata with other tiles, one for each of `list_tiles`, in that order; None leaves a tile out."""
    rest, new = iter(tiles), dict(metadata)
    counts = [len(group["tile_id"] if isinstance(group, Mapping) else group) for _, group in _groups(metadata)]
    kept = [[tile for _ in range(count) if (tile := next(rest)) is not None] for count in counts]
    if "tiles" in metadata:
        new["tiles"] = kept[0]
    if "files" in metadata:
        new["files"] = [dict(file) | {"tiles": own} for file, own in zip(metadata["files"], kept[1:], strict=True)]
    return new


def clean_verdicts(table: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
    """Of each row of a `tile_table` whether it shows clean light, and which rule decided.

    First `is_clean`; else `data_type` (long, clean / short, noisy); else the name: `_0.` marks an exposure
    under one second.
    """
    clean_type, kind = table["is_clean"], table["data_type"]
    said, typed = clean_type.notna().to_numpy(), kind.isin(CLEAN_TYPES + NOISY_TYPES).to_numpy()
    named = np.array([SHORT_EXPOSURE_MARK not in name for name in table["tile_id"]], bool)
    clean = np.where(said, clean_type.isin([True]).to_numpy(), np.where(typed, kind.isin(CLEAN_TYPES).to_numpy(), named))
    return clean, np.where(said, "is_clean", np.where(typed, "data_type", "name"))


def in_stack(tile: Mapping[str, Any]) -> bool:
    """Whether a tile shares its file with others, as number `index` of them."""
    return bool(tile.get("stack"))


def tile_files(tile: Mapping[str, Any]) -> list[str]:
    """Where a tile's file may lie below its root: its `stack` if it has one, else the first there of
    `pt_path`, `<tile_id>.pt`, `long/<tile_id>.pt`.
    """
    if in_stack(tile):
        return [tile["stack"]]
    named = [tile["pt_path"]] if tile.get("pt_path") else []
    return [*named, f"{tile['tile_id']}.pt", f"long/{tile['tile_id']}.pt"]


def fingerprint(metadata: Metadata, table: pd.DataFrame | None = None) -> str:
    """A short hash of the `tile_table` and, where they are told, of the `digests` of the files: the same tiles, the same name.

    `table`: its `tile_table`, where that was made already.
    """
    digests = [digest for file in metadata.get("files", []) if (digest := file.get("digests"))]
    said = hashlib.sha256(json.dumps(digests, sort_keys=True).encode())
    for name, column in (tile_table(metadata) if table is None else table).items():
        said.update("\n".join([f"\n{name}", *map(str, column.tolist())]).encode())
    return said.hexdigest()[:16]


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
    splits = table[["scene_id", "split"]].dropna().drop_duplicates()
    return [
        Problem(scene, "split", f"the scene is in several splits: {', '.join(sorted(found))}")
        for scene, found in splits.groupby("scene_id", observed=True, sort=False)["split"] if len(found) > 1
    ]  # fmt: skip


def digest(tile: NDArray) -> str:
    """A hash of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(tile).tobytes()).hexdigest()[:16]
