"""Nodes of the preprocessing pipeline: scenes and pairs are found, pairs checked on their pixels, frames cut to tiles and described."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.datasets.stacks import encode
from lowlight_kedro.jobs import ADDED, DIGESTS, Job, Jobs, no_bars
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.options import PairingOptions, PreprocessingOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor import scenes, tiles
from lowlight_kedro.sensor.alignment import PairCheck, check_pair
from lowlight_kedro.sensor.cfa import name as cfa_name
from lowlight_kedro.sensor.frame import Frame, normalise, same_white
from lowlight_kedro.sensor.tile_metadata import statistics

logger = logging.getLogger(__name__)


Problems = list[dict[str, str]]
CHECK_COLUMNS = (
    "measured_ratio", "ratio_error", "shift_y", "shift_x", "residual_y", "residual_x", "moving_fraction", "verdict", "reason",
)  # fmt: skip


def read_headers(raw_frames: Mapping[str, RawFile]) -> tuple[list[dict], Problems]:
    """What each raw says of itself, by name, and the files that cannot be read, which are told."""
    rows, unreadable = [], []
    for frame, raw in tqdm(raw_frames.items(), desc="headers", unit="raw", disable=no_bars()):
        try:
            header = raw.header()
        except ValueError as error:
            logger.warning("skipped: %s", error)
            unreadable.append({"file": str(raw.path), "reason": str(error)})
            continue
        rows.append({"frame": frame, "path": str(raw.path)} | header)
    return rows, unreadable


def index_frames(
    raw_frames: Mapping[str, RawFile], pair_lists: Mapping[str, str], options: PreprocessingOptions
) -> tuple[pd.DataFrame, Problems]:
    """Read every header: one row per raw with its scene, kind and split; and the files that cannot be read with the reason.

    Raises:
        ValueError: no raw is readable.
    """
    rows, unreadable = read_headers(raw_frames)
    if not rows:
        reason = unreadable[0]["reason"]
        raise ValueError(reason if len(raw_frames) == 1 else f"none of the {len(raw_frames)} raws is readable; the first: {reason}")
    layout = choose("layout", scenes.LAYOUTS, options.layout)
    frames = layout(pd.DataFrame(rows), scenes.LayoutRules(options.scene_pattern, options.burst_gap_s, pair_lists))
    if options.layout == "sid":
        for name, missing in scenes.listed_without_file(pair_lists, set(frames["frame"])).items():
            logger.warning("%s: %d of its short exposures are not among the readable raws; the first: %s", name, len(missing), missing[0])
    split = options.split
    frames["split"] = [
        split.scenes.get(scene) or published or scenes.split_of(scene, split.rule, split.fractions, {})
        for scene, published in zip(frames["scene"], frames["split"], strict=True)
    ]
    return frames, unreadable


def pair_frames(frames: pd.DataFrame, options: PreprocessingOptions) -> tuple[pd.DataFrame, Problems]:
    """Pairs of short and long exposures by name and header; short exposures without a partner are listed."""
    pairs, unmatched = scenes.pair(frames)
    if not (frames["data_type"] == "short").any():
        logger.info("no pairs: layout %s takes none of the %d raws for a short exposure (docs/data_sets.md)", options.layout, len(frames))
    pairs, excluded = scenes.exclude(pairs, dict(zip(frames["frame"], frames["path"], strict=True)), options.pairing.exclude)
    for problem in unmatched + excluded:
        logger.warning("not paired: %s: %s", problem["file"], problem["reason"])
    return pairs, unmatched + excluded


def check_files(short: RawFile, long: RawFile, exposure_ratio: float, options: PairingOptions) -> dict[str, dict]:
    """Open both raws and measure the pair: the columns CHECK_COLUMNS. A raw that cannot be decoded fails the pair."""
    try:
        frames = same_white((short(), long()))
        if frames[0].cfa != frames[1].cfa:
            raise ValueError(f"the colour filter arrays of {short.path} and {long.path} differ")
        signals = [normalise(frame) for frame in frames]
        check = check_pair(signals[0], signals[1], frames[0].cfa, exposure_ratio, options)
    except ValueError as error:
        check = PairCheck(exposure_ratio, reason=str(error))
    return {"record": {column: getattr(check, column) for column in CHECK_COLUMNS}}


def check_pairs(
    raw_frames: Mapping[str, RawFile], candidate_pairs: pd.DataFrame, options: PreprocessingOptions, executor: ExecutorOptions
) -> Jobs:
    """For each candidate the job to measure it; none if `pairing.check` is off."""
    pairs = candidate_pairs if options.pairing.check else candidate_pairs[:0]
    jobs = []
    for pair in pairs.to_dict("records"):
        short, long, ratio = raw_frames[pair["short"]], raw_frames[pair["long"]], float(pair["exposure_ratio"])
        settings = [ratio, asdict(options.pairing)]
        jobs.append(Job(pair["short"], "pairs", partial(check_files, short, long, ratio), [short, long], settings))
    return Jobs(jobs, options.pairing, executor.build(), "pairs", "pair")


def accept_pairs(
    frames: pd.DataFrame, candidate_pairs: pd.DataFrame, pair_checks: Mapping[str, Mapping[str, Callable[[], dict]]],
    unmatched_frames: Problems, options: PreprocessingOptions,
) -> tuple[pd.DataFrame, Problems]:  # fmt: skip
    """The pairs whose pixels show one still scene in the ratio of their headers, with what was measured.

    A pair that fails is listed with its reason and not used.
    """
    if not options.pairing.check:
        return candidate_pairs, unmatched_frames
    checks = [pair_checks[pair]["record"]() for pair in candidate_pairs["short"]]
    rows = [{"verdict": "failed", "reason": check["error"]} if "error" in check else check for check in checks]
    pairs = pd.concat([candidate_pairs, pd.DataFrame(rows, columns=list(CHECK_COLUMNS), index=candidate_pairs.index)], axis=1)
    bad = pairs["verdict"] != "ok"
    paths = frames.set_index("frame")["path"]
    failed = [{"file": paths[row.short], "reason": f"with {row.long}: {row.reason}"} for row in pairs[bad].itertuples()]
    for problem in failed:
        logger.warning("pair not used: %s: %s", problem["file"], problem["reason"])
    return pairs[~bad].reset_index(drop=True), unmatched_frames + failed


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
