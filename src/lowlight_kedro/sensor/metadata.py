"""What the metadata of tiles says, in our layout and in the predecessor's."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

CLEAN_TYPES, NOISY_TYPES = ("long", "clean"), ("short", "noisy")
SHORT_EXPOSURE_MARK = "_0."
INHERITED = ("split", "scene_id", "data_type", "is_clean")

Metadata = Mapping[str, Any]


def list_tiles(metadata: Metadata) -> list[dict[str, Any]]:
    """All tiles of `{"tiles": [...]}` or `{"files": [{..., "tiles": [...]}]}`, fields of the file inherited.

    A tile in a stack says `stack` (file) and `index`; a tile in a file of its own may say `pt_path`.

    Raises:
        ValueError: neither key is there, a tile has no `tile_id`, or a `stack` without a whole number as `index`.
    """
    if "tiles" not in metadata and "files" not in metadata:
        raise ValueError("metadata must hold `tiles: [...]` or `files: [{..., tiles: [...]}]`, got keys: " + ", ".join(metadata))
    tiles = [dict(tile) for tile in metadata.get("tiles", [])]
    for file in metadata.get("files", []):
        inherited = {key: file[key] for key in INHERITED if key in file}
        tiles += [inherited | tile for tile in file.get("tiles", [])]
    for number, tile in enumerate(tiles):
        if "tile_id" not in tile:
            raise ValueError(f"tile number {number} of the metadata has no tile_id, it has: {', '.join(tile)}")
        if in_stack(tile) and type(tile.get("index")) is not int:
            raise ValueError(f"tile {tile['tile_id']}: `index` must be its place in {tile['stack']}, 0, 1, ..., got {tile.get('index')!r}")
    return tiles


def replace_tiles(metadata: Metadata, tiles: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The metadata with other tiles, one for each of `list_tiles`, in that order; None leaves a tile out."""
    rest = iter(tiles)
    new = dict(metadata)
    if "tiles" in metadata:
        new["tiles"] = [tile for _ in metadata["tiles"] if (tile := next(rest)) is not None]
    if "files" in metadata:
        new["files"] = [
            dict(file) | {"tiles": [tile for _ in file.get("tiles", []) if (tile := next(rest)) is not None]} for file in metadata["files"]
        ]
    return new


def clean_verdict(tile: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a tile shows clean light, and which rule decided.

    First `is_clean`; else `data_type` (long, clean / short, noisy); else the name: `_0.` marks an exposure
    under one second.
    """
    if tile.get("is_clean") is not None:
        return bool(tile["is_clean"]), "is_clean"
    if tile.get("data_type") in CLEAN_TYPES + NOISY_TYPES:
        return tile["data_type"] in CLEAN_TYPES, "data_type"
    return SHORT_EXPOSURE_MARK not in tile["tile_id"], "name"


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


def fingerprint(metadata: Metadata) -> str:
    """A short hash of the list of tiles: the same tiles, the same name."""
    return hashlib.sha256(json.dumps(list_tiles(metadata), sort_keys=True).encode()).hexdigest()[:16]
