"""Pieces of an image to the files of its tiles and a record of each."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.datasets.stacks import encode
from lowlight_kedro.jobs import ADDED
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.tile_checks import statistics


def _tile_record(stem: str, place: tiles.Position, pixels: NDArray, tile: NDArray) -> dict[str, Any]:
    return {
        "tile_id": f"{stem}_r{place.row:02d}_c{place.column:02d}", "row": place.row, "column": place.column,
        "top": place.top, "left": place.left, "clipped_fraction": tiles.clipped_fraction(pixels),
    } | statistics(tile)  # fmt: skip


def describe_files(records: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Of the images that could be cut, what the metadata says of each; and a table with a row per tile."""
    files = [{key: value for key, value in record.items() if key not in ADDED} for record in records if "error" not in record]
    shared = [{key: value for key, value in file.items() if key != "tiles"} for file in files]
    return files, pd.DataFrame([common | tile for common, file in zip(shared, files, strict=True) for tile in file["tiles"]])


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
