"""Nodes of the preprocessing pipeline that cut images to tiles and describe what was cut."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.datasets.stacks import encode
from lowlight_kedro.jobs import ADDED, DIGESTS, Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.preprocessing.pairing import Problems
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.cfa import name as cfa_name
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.tile_metadata import statistics

logger = logging.getLogger(__name__)


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


def _describe_frame(row: Mapping[str, Any], frame: Frame, ratio: float, scale: int) -> dict[str, Any]:
    return {
        "frame": row["frame"], "scene_id": row["scene"], "split": row["split"], "data_type": row["data_type"],
        "is_clean": row["data_type"] == "long", "exposure_s": float(row["exposure_s"]), "exposure_ratio": ratio,
        "iso": float(row["iso"]), "camera": frame.camera, "cfa": cfa_name(frame.cfa),
        "black_level": frame.black_level.mean().item(), "white_level": frame.white_level,
        "white_balance": list(frame.white_balance), "scale": scale,
    }  # fmt: skip


def _cut_frame(row: Mapping[str, Any], raw: Callable[[], Frame], ratio: float, options: PreprocessingOptions) -> dict[str, dict]:
    """The files of tiles of one frame, and the frame's record with a record of each tile. A short exposure is scaled by its ratio."""
    frame = raw()
    rgb = options.demosaicer.demosaic(frame)
    rgb *= np.float32(ratio)
    pieces = tiles.cut(rgb, options.tiles.size, options.tiles.stride)
    files, records = pack_tiles(pieces, row["frame"].replace("/", "_"), row["data_type"], options.tiles.storage)
    return {"tiles": files, "record": _describe_frame(row, frame, ratio, options.demosaicer.scale(frame.cfa)) | {"tiles": records}}


def cut_tiles(
    raw_frames: dict[str, Any], frames: pd.DataFrame, pairs: pd.DataFrame, options: PreprocessingOptions, executor: ExecutorOptions
) -> Jobs:
    """For each frame the job to decode, demosaic and cut it."""
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    rows = frames[frames["data_type"].isin(options.tiles.data_types)]
    settings = [options.model_dump(include={"tiles", "demosaicer"}), options.demosaicer.code()]
    jobs = []
    for row in rows.to_dict("records"):
        name = row["frame"]
        raw, ratio = raw_frames[name], float(ratios.get(name, 1.0))
        facts = {key: value for key, value in row.items() if key != "path"}  # a folder that was moved holds the same frames
        jobs.append(Job(name, "tiles", partial(_cut_frame, row, raw, ratio), [raw], [settings, facts, ratio]))
    return Jobs(jobs, options, executor.build(), "tiles", "raw")


def describe_tiles(
    frame_tiles: dict[str, dict[str, Callable[[], dict]]], frames: pd.DataFrame, pairs: pd.DataFrame,
    unreadable: Problems, unpaired: Problems, options: PreprocessingOptions,
) -> tuple[dict, pd.DataFrame, dict]:  # fmt: skip
    """Metadata of all tiles, the same as a table, and a report of what was used and what was not.

    Raises:
        ValueError: no frame gave a tile.
    """
    wanted = frames[frames["data_type"].isin(options.tiles.data_types)]
    places = zip(wanted["frame"], wanted["path"], strict=True)
    files, index, failed = describe_files((path, frame_tiles[frame]["record"]() | {"path": path}) for frame, path in places)
    if not files:
        raise ValueError(
            f"zero tiles: no raw could be cut; the first: {failed[0]['reason'] if failed else 'no frame of the wanted data_types'}"
        )
    metadata = {
        "version": 1, "tile_size": options.tiles.size, "made_by": {"preprocessing": options.model_dump(mode="json")},
        "pairs": pairs.to_dict("records"), "files": files,
    }  # fmt: skip
    report = {
        "raws": len(frames) + len(unreadable), "used": len(files), "pairs": len(pairs),
        "tiles": {f"{split}/{kind}": len(group) for (split, kind), group in index.groupby(["split", "data_type"])},
        "skipped": unreadable + failed, "unpaired": unpaired,
    }  # fmt: skip
    return metadata, index, report
