"""Nodes that find scenes and pairs, and check the pairs on their pixels."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

import pandas as pd
from tqdm import tqdm

from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.jobs import Job, Jobs, no_bars
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.options import PairingOptions, PreprocessingOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor import scenes
from lowlight_kedro.sensor.alignment import PairCheck, check_pair
from lowlight_kedro.sensor.frame import normalise, same_white

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
