"""Nodes of the preprocessing pipeline."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.preprocessing.pairing import Problems
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.cfa import name as cfa_name
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.tile_checks import statistics

logger = logging.getLogger(__name__)


def _describe_frame(row: Any, frame: Frame, ratio: float) -> dict[str, Any]:
    return {
        "frame": row.frame, "path": row.path, "scene_id": row.scene, "split": row.split, "data_type": row.data_type,
        "is_clean": row.data_type == "long", "exposure_s": float(row.exposure_s), "exposure_ratio": ratio,
        "iso": float(row.iso), "camera": frame.camera, "cfa": cfa_name(frame.cfa),
        "black_level": frame.black_level.mean().item(), "white_level": frame.white_level,
        "white_balance": list(frame.white_balance),
    }  # fmt: skip


def _cut_frame(row: Any, frame: Frame, ratio: float, options: PreprocessingOptions) -> tuple[dict, dict]:
    """Tiles of one frame by file name, and the frame's record with a record of each tile."""
    rgb = options.demosaicer.demosaic(frame) * np.float32(ratio)
    cut, records = {}, []
    for place, pixels in tiles.cut(rgb, options.tiles.size, options.tiles.stride):
        tile_id = f"{row.frame.replace('/', '_')}_r{place.row:02d}_c{place.column:02d}"
        tile = tiles.to_tile_domain(pixels)
        cut[f"{row.data_type}/{tile_id}"] = tile
        records.append({
            "tile_id": tile_id, "pt_path": f"{row.data_type}/{tile_id}.pt",
            "row": place.row, "column": place.column, "top": place.top, "left": place.left,
            "clipped_fraction": tiles.clipped_fraction(pixels),
        } | statistics(tile))  # fmt: skip
    return cut, _describe_frame(row, frame, ratio) | {"tiles": records}


def cut_tiles(
    raw_frames: dict[str, Any], frames: pd.DataFrame, pairs: pd.DataFrame, options: PreprocessingOptions
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, dict]]]:
    """Decode, demosaic and cut frame by frame; yields the tiles of one frame and its record.

    A short exposure is scaled by its ratio. A frame that cannot be used yields no tile and a record with `error`.
    """
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    rows = frames[frames["data_type"].isin(options.tiles.data_types)]
    for row in tqdm(rows.itertuples(), total=len(rows), desc="tiles", unit="raw"):
        try:
            cut, record = _cut_frame(row, raw_frames[row.frame](), float(ratios.get(row.frame, 1.0)), options)
        except ValueError as error:
            logger.warning("skipped: %s", error)
            cut, record = {}, {"frame": row.frame, "path": row.path, "error": str(error)}
        yield cut, {row.frame: record}


def describe_tiles(
    frame_records: dict[str, Callable[[], dict]], frames: pd.DataFrame, pairs: pd.DataFrame,
    unreadable: Problems, unpaired: Problems, options: PreprocessingOptions,
) -> tuple[dict, pd.DataFrame, dict]:  # fmt: skip
    """Metadata of all tiles, the same as a table, and a report of what was used and what was not.

    Raises:
        ValueError: no frame gave a tile.
    """
    wanted = frames[frames["data_type"].isin(options.tiles.data_types)]["frame"]
    records = [frame_records[frame]() for frame in wanted]
    failed = [{"file": record["path"], "reason": record["error"]} for record in records if "error" in record]
    files = [record for record in records if "error" not in record]
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
