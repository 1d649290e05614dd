"""Nodes of the preprocessing pipeline."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.datasets.stacks import encode
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.sensor import scenes, tiles
from lowlight_kedro.sensor.cfa import name as cfa_name
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.tile_checks import statistics

logger = logging.getLogger(__name__)

Problems = list[dict[str, str]]
JOB_KEYS = ("key", "files")  # what the job added to the record of a frame


def index_frames(raw_frames: dict[str, Any], options: PreprocessingOptions) -> tuple[pd.DataFrame, Problems]:
    """Read every header: one row per raw, and the files that cannot be read with the reason.

    Raises:
        ValueError: no raw is readable.
    """
    rows, unreadable = [], []
    for frame, raw in tqdm(raw_frames.items(), desc="headers", unit="raw"):
        try:
            header = raw.header()
        except ValueError as error:
            logger.warning("skipped: %s", error)
            unreadable.append({"file": str(raw.path), "reason": str(error)})
            continue
        scene, named_exposure = scenes.scene_of(frame, options.scene_pattern)
        exposure = header["exposure_s"] if np.isnan(named_exposure) else named_exposure
        rows.append({"frame": frame, "path": str(raw.path), "scene": scene} | header | {"exposure_s": exposure})
    if not rows:
        raise ValueError(f"none of the {len(raw_frames)} raws is readable; the first: {unreadable[0]['reason']}")
    frames = pd.DataFrame(rows)
    split = options.split
    frames["split"] = [scenes.split_of(scene, split.rule, split.shares, split.scenes) for scene in frames["scene"]]
    frames["data_type"] = scenes.data_types(frames)
    return frames, unreadable


def pair_frames(frames: pd.DataFrame) -> tuple[pd.DataFrame, Problems]:
    """Pairs of short and long exposures; short exposures without a partner are listed."""
    pairs, unpaired = scenes.pair(frames)
    for problem in unpaired:
        logger.warning("not paired: %s: %s", problem["file"], problem["reason"])
    return pairs, unpaired


def _describe_frame(row: Mapping[str, Any], frame: Frame, ratio: float) -> dict[str, Any]:
    return {
        "frame": row["frame"], "path": row["path"], "scene_id": row["scene"], "split": row["split"], "data_type": row["data_type"],
        "is_clean": row["data_type"] == "long", "exposure_s": float(row["exposure_s"]), "exposure_ratio": ratio,
        "iso": float(row["iso"]), "camera": frame.camera, "cfa": cfa_name(frame.cfa),
        "black_level": frame.black_level.mean().item(), "white_level": frame.white_level,
        "white_balance": list(frame.white_balance),
    }  # fmt: skip


def _tile_record(stem: str, place: tiles.Position, pixels: NDArray, tile: NDArray) -> dict[str, Any]:
    return {
        "tile_id": f"{stem}_r{place.row:02d}_c{place.column:02d}", "row": place.row, "column": place.column,
        "top": place.top, "left": place.left, "clipped_fraction": tiles.clipped_fraction(pixels),
    } | statistics(tile)  # fmt: skip


def _cut_frame(row: Mapping[str, Any], raw: Callable[[], Frame], ratio: float, options: PreprocessingOptions) -> dict[str, dict]:
    """The files of tiles of one frame, and the frame's record with a record of each tile. A short exposure is scaled by its ratio."""
    frame = raw()
    rgb = options.demosaicer.demosaic(frame)
    rgb *= np.float32(ratio)
    stem, size = row["frame"].replace("/", "_"), options.tiles.size
    stack_name = f"{row['data_type']}/{stem}.npy"
    places = tiles.grid(rgb.shape[1:], size, options.tiles.stride)
    stack = np.empty((len(places), len(rgb), size, size), np.uint16) if options.tiles.storage == "stack" else None
    files: dict[str, NDArray] = {} if stack is None else {stack_name: stack}
    records = []
    for index, (place, pixels) in enumerate(tiles.cut(rgb, size, options.tiles.stride)):
        tile = tiles.to_tile_domain(pixels)
        record = _tile_record(stem, place, pixels, tile)
        if stack is None:
            record["pt_path"] = f"{row['data_type']}/{record['tile_id']}.pt"
            files[record["pt_path"]] = tile
        else:
            stack[index] = encode(tile)
            record |= {"stack": stack_name, "index": index}
        records.append(record)
    return {"tiles": files, "record": _describe_frame(row, frame, ratio) | {"tiles": records}}


def cut_tiles(
    raw_frames: dict[str, Any], frames: pd.DataFrame, pairs: pd.DataFrame, options: PreprocessingOptions, executor: ExecutorOptions
) -> Jobs:
    """For each frame the job to decode, demosaic and cut it."""
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    rows = frames[frames["data_type"].isin(options.tiles.data_types)]
    settings = options.model_dump(include={"tiles", "demosaicer"})
    jobs = []
    for row in rows.to_dict("records"):
        name = row["frame"]
        raw, ratio = raw_frames[name], float(ratios.get(name, 1.0))
        jobs.append(Job(name, partial(_cut_frame, row, raw, ratio), [raw], [settings, row, ratio]))
    return Jobs(jobs, options, executor.build(), "tiles", "raw")


def describe_tiles(
    frame_tiles: dict[str, dict[str, Callable[[], dict]]], frames: pd.DataFrame, pairs: pd.DataFrame,
    unreadable: Problems, unpaired: Problems, options: PreprocessingOptions,
) -> tuple[dict, pd.DataFrame, dict]:  # fmt: skip
    """Metadata of all tiles, the same as a table, and a report of what was used and what was not.

    Raises:
        ValueError: no frame gave a tile.
    """
    wanted = frames[frames["data_type"].isin(options.tiles.data_types)]["frame"]
    records = [frame_tiles[frame]["record"]() for frame in wanted]
    failed = [{"file": record["path"], "reason": record["error"]} for record in records if "error" in record]
    files = [{key: value for key, value in record.items() if key not in JOB_KEYS} for record in records if "error" not in record]
    if not files:
        raise ValueError(
            f"zero tiles: no raw could be cut; the first: {failed[0]['reason'] if failed else 'no frame of the wanted data_types'}"
        )
    shared = [{key: value for key, value in file.items() if key != "tiles"} for file in files]
    index = pd.DataFrame([common | tile for common, file in zip(shared, files, strict=True) for tile in file["tiles"]])
    metadata = {"version": 1, "tile_size": options.tiles.size, "pairs": pairs.to_dict("records"), "files": files}
    report = {
        "raws": len(frames) + len(unreadable), "used": len(files), "pairs": len(pairs),
        "tiles": {f"{split}/{kind}": len(group) for (split, kind), group in index.groupby(["split", "data_type"])},
        "skipped": unreadable + failed, "unpaired": unpaired,
    }  # fmt: skip
    return metadata, index, report
