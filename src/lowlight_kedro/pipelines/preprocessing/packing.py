"""Pieces of an image to the files of its tiles and a record of each."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.datasets.stacks import encode
from lowlight_kedro.jobs import ADDED, DIGESTS
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.tile_checks import statistics

PLACES = ("tile_id", "stack", "index", "pt_path")  # what the metadata tells of a tile; the rest stands in the index


def _tile_record(stem: str, place: tiles.Position, pixels: NDArray, tile: NDArray) -> dict[str, Any]:
    return {
        "tile_id": f"{stem}_r{place.row:02d}_c{place.column:02d}", "row": place.row, "column": place.column,
        "top": place.top, "left": place.left, "clipped_fraction": tiles.clipped_fraction(pixels),
    } | statistics(tile)  # fmt: skip


def describe_files(
    records: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[list[dict[str, Any]], pd.DataFrame, list[dict[str, str]]]:
    """What the metadata says of each image that could be cut, and where its tiles lie; a table with a row per tile; what failed, and why.

    Takes one (name, record) after the other, and keeps columns.
    """
    files: list[dict[str, Any]] = []
    shared, own, failed = [], [], []
    for name, record in records:
        if "error" in record:
            failed.append({"file": name, "reason": record["error"]})
            continue
        tiles = pd.DataFrame(record["tiles"])
        facts = {key: value for key, value in record.items() if key not in (*ADDED, "tiles")}
        places = {key: tiles[key].tolist() for key in PLACES if key in tiles}
        if "stack" in places:
            places["stack"] = places["stack"][0]  # all tiles of an image share one
        files.append(facts | {"digests": record.get(DIGESTS, {}), "tiles": places or []})
        shared.append(facts)
        own.append(tiles)
    if not own:
        return [], pd.DataFrame(), failed
    repeated = pd.DataFrame(shared).loc[np.repeat(np.arange(len(own)), [len(tiles) for tiles in own])].reset_index(drop=True)
    return files, pd.concat([repeated, pd.concat(own, ignore_index=True)], axis=1), failed


def pack_tiles(
    pieces: Iterable[tuple[tiles.Position, NDArray]], stem: str, data_type: str, storage: Literal["stack", "pt"]
) -> tuple[dict[str, NDArray], list[dict[str, Any]]]:
    """Pieces (C, size, size) of linear RGB, 1 = white, as `{file: content}`, and a record of each tile.

    Args:
        stem: begins the names of the tiles. data_type: their folder. storage: one 16-bit stack, or a float32 file per tile.
    """
    stack_name = f"{data_type}/{stem}.npy"
    files: dict[str, NDArray] = {}
    records: list[dict[str, Any]] = []
    codes: list[NDArray] = []
    for place, pixels in pieces:
        tile = tiles.to_tile_domain(pixels)
        record = _tile_record(stem, place, pixels, tile)
        if storage == "stack":
            record |= {"stack": stack_name, "index": len(codes)}
            codes.append(encode(tile))
        else:
            record["pt_path"] = f"{data_type}/{record['tile_id']}.pt"
            files[record["pt_path"]] = tile
        records.append(record)
    return files | ({stack_name: np.stack(codes)} if codes else {}), records
