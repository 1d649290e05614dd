"""What the metadata of tiles says, in our layout and in the predecessor's.

`{"tiles": [...]}` or `{"files": [{..., "tiles": ...}]}`, fields of the file inherited. The tiles of a file are a list of records, or the
columns of a table: a list has a value for each tile, anything else counts for all of them. Columns are what the pipelines write: a
million records would be gigabytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
    for inherited, told in _groups(metadata):
        if isinstance(told, Mapping):
            fields = [key for key in told if key not in inherited]
            rows = zip(*(_column(field, {}, told) for field in fields), strict=True)
            told = [dict(zip(fields, row, strict=True)) for row in rows]
        tiles += [inherited | tile for tile in told]
    return tiles


def replace_tiles(metadata: Metadata, tiles: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The metadata with other tiles, one for each of `list_tiles`, in that order; None leaves a tile out."""
    rest, new = iter(tiles), dict(metadata)
    counts = [len(told["tile_id"] if isinstance(told, Mapping) else told) for _, told in _groups(metadata)]
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
    told, kind = table["is_clean"], table["data_type"]
    said, typed = told.notna().to_numpy(), kind.isin(CLEAN_TYPES + NOISY_TYPES).to_numpy()
    named = np.array([SHORT_EXPOSURE_MARK not in name for name in table["tile_id"]], bool)
    clean = np.where(said, told.isin([True]).to_numpy(), np.where(typed, kind.isin(CLEAN_TYPES).to_numpy(), named))
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
    digests = [told for file in metadata.get("files", []) if (told := file.get("digests"))]
    said = hashlib.sha256(json.dumps(digests, sort_keys=True).encode())
    for name, column in (tile_table(metadata) if table is None else table).items():
        said.update("\n".join([f"\n{name}", *map(str, column.tolist())]).encode())
    return said.hexdigest()[:16]
