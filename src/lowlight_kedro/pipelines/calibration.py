"""The noise of cameras, measured from whatever raws there are: flats and darks, pairs, single images, tags; and what darks show.

raws -> noise of each set of flats, pair and image -> calibrations per camera, table and figures; darks -> dark maps
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from kedro.pipeline import Node, Pipeline
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lowlight_kedro.bounds import Natural
from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.evaluation.pictures import noise_curves
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions, Options
from lowlight_kedro.pipelines.preprocessing.nodes import Problems, index_frames, pair_frames, read_headers
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions, Split
from lowlight_kedro.sensor.alignment import PairLimits
from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, combine, tag_estimate
from lowlight_kedro.sensor.calibration.pairs import pair_estimate
from lowlight_kedro.sensor.calibration.photon_transfer import photon_transfer
from lowlight_kedro.sensor.calibration.record import METHODS, from_entry, to_entry
from lowlight_kedro.sensor.calibration.single_image import image_estimate
from lowlight_kedro.sensor.dark_map import DarkMap, measure_dark_map
from lowlight_kedro.sensor.dark_signal import About, Darks, alike
from lowlight_kedro.sensor.frame import Frame, in_white, lowest_white, normalise, range_dn, same_white

logger = logging.getLogger(__name__)


class PairOptions(Options):
    """Pairs of exposures that are measured."""

    splits: list[Split]
    max_per_iso: Natural


class ImageOptions(Options):
    """Single frames that are measured."""

    data_types: list[Literal["long", "short"]]
    max_per_iso: Natural


class CalibrationOptions(Options):
    """All of `params:calibration`."""

    methods: list[Literal["flats", "pairs", "image", "tag"]]
    pairs: PairOptions
    image: ImageOptions


Raw = Callable[[], Frame]
Measured = tuple[NoiseEstimate, float]  # with white - black in DN
COLUMNS = (
    "camera", "iso", "method", "verdict", "gain_dn", "gain_dn_error", "read_noise_dn", "read_noise_dn_error",
    "row_noise_dn", "row_noise_dn_error", "tail", "tail_error", "measurements", "reason",
)  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def _from_flats(levels: Sequence[Sequence[Raw]], darks: Sequence[Raw]) -> Measured:
    """One level of flats in memory at a time; all in units of the lowest white that any of them shows."""
    raws = [raw for level in [*levels, darks] for raw in level]
    white = lowest_white(raw() for raw in raws)

    def signal(raw: Raw) -> NDArray:
        return normalise(in_white(raw(), white))

    first = in_white(raws[0](), white)
    estimate = photon_transfer(([signal(raw) for raw in level] for level in levels), [signal(raw) for raw in darks], first.cfa)
    return estimate, range_dn(first)


def _from_pair(short: Raw, long: Raw, ratio: float, limits: PairLimits) -> Measured:
    frame, other = same_white((short(), long()))
    return pair_estimate(frame, other, ratio, limits), range_dn(frame)


def _from_image(raw: Raw) -> Measured:
    frame = raw()
    return image_estimate(frame), range_dn(frame)


def _from_tag(raw: Raw) -> Measured | None:
    frame = raw()
    estimate = tag_estimate(frame)
    return (estimate, range_dn(frame)) if estimate else None


def _record(measure: Callable[..., Measured | None], about: Mapping[str, Any], shared: Any) -> dict[str, dict]:
    """What a job gives: the camera, and the entry that `measure` makes, None where the files do not hold it."""
    measured = measure()
    identity = {key: about[key] for key in ("iso", "method", "frames")}
    return {"record": {"camera": about["camera"], "entry": to_entry(measured[0], range_dn=measured[1], **identity) if measured else None}}


def _job(name: str, measure: Callable[..., Measured | None], sources: Sequence[Any], about: Mapping[str, Any], settings: Any = None) -> Job:
    slug = _slug(f"{about['camera']}_iso{about['iso']:g}_{about['method']}_{name}")
    return Job(slug, "calibration", partial(_record, measure, about), sources, [dict(about), settings])


def _flat_jobs(raws: Mapping[str, Any], frames: pd.DataFrame) -> Iterator[Job]:
    """One per camera and ISO, of the size that most of its flats have; flats of one exposure time are one level."""
    for (camera, iso), every in frames[frames["data_type"].isin(["flat", "dark"])].groupby(["camera", "iso"]):
        flats = every[every["data_type"] == "flat"]
        height, width = (flats if len(flats) else every)[["height", "width"]].value_counts().index[0]
        group = every[(every["height"] == height) & (every["width"] == width)]
        flats = group[group["data_type"] == "flat"]
        levels = [[raws[frame] for frame in level["frame"]] for _, level in flats.groupby("exposure_s")]
        darks = [raws[frame] for frame in group.loc[group["data_type"] == "dark", "frame"]]
        about = {"camera": camera, "iso": iso, "method": "flats", "frames": group["frame"].tolist()}
        yield _job("all", partial(_from_flats, levels, darks), [raws[frame] for frame in group["frame"]], about)


def _pair_jobs(
    raws: Mapping[str, Any], pairs: pd.DataFrame, preprocessing: PreprocessingOptions, options: CalibrationOptions
) -> Iterator[Job]:
    for row in _first(pairs[pairs["split"].isin(options.pairs.splits)], options.pairs.max_per_iso):
        short, long, ratio = raws[row["short"]], raws[row["long"]], float(row["exposure_ratio"])
        about = {"camera": row["camera"], "iso": row["iso"], "method": "pairs", "frames": [row["short"], row["long"]]}
        measure = partial(_from_pair, short, long, ratio, preprocessing.pairing)
        yield _job(row["short"], measure, [short, long], about, [ratio, asdict(preprocessing.pairing)])


def _frame_jobs(raws: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], method: str, measure: Callable[[Raw], Any]) -> Iterator[Job]:
    for row in rows:
        frame = row["frame"]
        about = {"camera": row["camera"], "iso": row["iso"], "method": method, "frames": [frame]}
        yield _job(frame, partial(measure, raws[frame]), [raws[frame]], about)


def _first(table: pd.DataFrame, count: int) -> list[dict]:
    """The first rows of each camera and ISO."""
    return table.groupby(["camera", "iso"], sort=False).head(count).to_dict("records")


def measure_noise(
    raw_frames: Mapping[str, Any], frames: pd.DataFrame, pairs: pd.DataFrame,
    preprocessing: PreprocessingOptions, options: CalibrationOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """The job to measure each set of flats and darks, each pair, each single image and each tag."""
    frames = frames[np.isfinite(frames["iso"])]
    scenes = frames[frames["data_type"].isin(options.image.data_types)]
    by_method: dict[str, Callable[[], Iterator[Job]]] = {
        "flats": lambda: _flat_jobs(raw_frames, frames),
        "pairs": lambda: _pair_jobs(raw_frames, pairs, preprocessing, options),
        "image": lambda: _frame_jobs(raw_frames, _first(scenes, options.image.max_per_iso), "image", _from_image),
        "tag": lambda: _frame_jobs(raw_frames, _first(frames, 1), "tag", _from_tag),
    }
    jobs = [job for method in options.methods for job in by_method[method]()]
    return Jobs(jobs, None, executor.build(), "calibrating", "measurement")


def collect_calibrations(
    noise_measurements: Mapping[str, Mapping[str, Callable[[], dict]]], unreadable: Problems, unpaired: Problems
) -> tuple[dict[str, dict], pd.DataFrame, dict[str, Any]]:
    """Measurements of one camera, ISO and method put together: a calibration per camera by file name, a table, and a report of the rest."""
    groups: dict[tuple[str, float, str], list[dict]] = defaultdict(list)
    records = [parts["record"]() for parts in noise_measurements.values()]
    failed = [{"file": record["path"], "reason": record["error"]} for record in records if "error" in record]
    for record in records:
        if record.get("entry"):
            groups[record["camera"], record["entry"]["iso"], record["entry"]["method"]].append(record["entry"])
    cameras: dict[str, dict] = {}
    rows = []
    for (camera, iso, method), entries in sorted(groups.items(), key=lambda item: (*item[0][:2], METHODS.index(item[0][2]))):
        frames = [frame for entry in entries for frame in entry["frames"]]
        estimate, span = combine([from_entry(entry) for entry in entries], scenes=method == "image"), entries[0]["range_dn"]
        entry = to_entry(estimate, iso=iso, method=method, range_dn=span, frames=frames)
        cameras.setdefault(_slug(camera), {"camera": camera, "entries": []})["entries"].append(entry)
        rows.append({"camera": camera, "measurements": len(entries)} | {key: value for key, value in entry.items() if key in COLUMNS})
    if not rows:
        logger.warning("no noise could be measured: there are no flats, no pairs that fit, and no image that told its noise")
    report = {"measurements": len(records) - len(failed), "skipped": unreadable + failed, "unpaired": unpaired}
    return cameras, pd.DataFrame(rows, columns=list(COLUMNS)), report


def plot_calibrations(calibrations: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Variance against mean with the fit, a figure per camera and ISO."""
    figures = {}
    for record in calibrations:
        for iso in sorted({entry["iso"] for entry in record["entries"]}):
            entries = [entry for entry in record["entries"] if entry["iso"] == iso]
            figures[f"{_slug(record['camera'])}_iso{iso:g}"] = noise_curves(f"{record['camera']}, ISO {iso:g}", entries)
    return figures


ALIKE = ["camera", "iso", "exposure_s", "height", "width"]  # columns of what darks of one map have in common


def _measured(raws: Sequence[RawFile], shared: Any = None) -> dict[str, Any]:
    """What a job gives: the map, and what became of the darks."""
    dark_map, left_out = measure_dark_map(raws, [raw.path.name for raw in raws])
    record = {"camera": dark_map.camera, "iso": dark_map.iso, "exposure_s": dark_map.exposure_s, "darks": list(dark_map.frames)}
    return {"map": dark_map, "record": record | {"left_out": left_out, "sites": len(dark_map.sites)}}


def _tell_left_out(record: Mapping[str, Any]) -> None:
    for reason in record.get("left_out", ()):
        logger.warning("%s", reason)


def _map_of(raws: Sequence[RawFile]) -> DarkMap:
    """The map of these darks; those that are left out are told, also where none is left: darks of another time may do."""
    try:
        measured = _measured(raws)
    except ValueError as error:
        logger.warning("%s", error)
        raise
    _tell_left_out(measured["record"])
    return measured["map"]  # type: ignore[no-any-return]


def _digest(raws: Sequence[RawFile]) -> str:
    return hashlib.sha256(" ".join(raw.content_hash() for raw in raws).encode()).hexdigest()


def _alike(rows: pd.DataFrame) -> dict[About, list[str]]:
    """Names by what darks of one map have in common; those whose file does not tell its ISO are left out."""
    known = rows[rows["iso"] > 0]
    shapes = zip(known["height"].astype(int), known["width"].astype(int), strict=True)
    return alike(zip(known["frame"], zip(known["camera"], known["iso"], known["exposure_s"], shapes, strict=True), strict=True))


def named_darks(raws: Mapping[str, RawFile], frames: pd.DataFrame) -> list[Darks]:
    """Named raws as darks, measured when they are needed; files that cannot be read, or fit none of the `frames`, are told."""
    rows, _ = read_headers(raws)
    wanted = frames[["camera", "iso", "height", "width"]].drop_duplicates().to_dict("records")
    found = []
    for about, names in _alike(pd.DataFrame(rows, columns=["frame", *ALIKE])).items():
        group = [raws[name] for name in names]
        darks = Darks(*about, measure=partial(_map_of, group), digest=partial(_digest, group))
        found.append(darks)
        if not any(darks.fit(one["camera"], one["iso"], (one["height"], one["width"])) for one in wanted):
            files = ", ".join(raw.path.name for raw in group)
            logger.warning("darks that fit no frame: %s (%s, ISO %g, %d x %d)", files, darks.camera, darks.iso, *darks.shape)
    return found


def measure_darks(raw_frames: Mapping[str, RawFile], frames: pd.DataFrame, executor: ExecutorOptions) -> Jobs:
    """The job to measure each set of darks, the raws in folders named `darks`."""
    jobs = []
    for (camera, iso, exposure_s, (height, width)), names in _alike(frames[frames["data_type"] == "dark"]).items():
        raws = [raw_frames[name] for name in names]
        name = f"{_slug(camera)}_iso{iso:g}_{exposure_s:g}s_{height}x{width}"
        jobs.append(Job(name, "darks", partial(_measured, raws), raws, names))
    return Jobs(jobs, None, executor.build(), "darks", "set")


def collect_darks(dark_measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, DarkMap]:
    """The maps by name; darks that were left out are told."""
    for parts in dark_measurements.values():
        _tell_left_out(parts["record"]())
    return {name: parts["map"]() for name, parts in dark_measurements.items() if "map" in parts and "error" not in parts["record"]()}


def create_pipeline() -> Pipeline:
    """The calibration pipeline."""
    return Pipeline([
        Node(
            index_frames, ["raw_frames", "pair_lists", "params:preprocessing"], ["calibration_frames", "calibration_unreadable"],
            name="index_calibration_frames",
        ),
        Node(
            pair_frames, ["calibration_frames", "params:preprocessing"], ["calibration_pairs", "calibration_unpaired"],
            name="pair_calibration_frames",
        ),
        Node(
            measure_noise,
            ["raw_frames", "calibration_frames", "calibration_pairs", "params:preprocessing", "params:calibration", "params:executor"],
            "noise_measurements",
            name="measure_noise",
        ),
        Node(
            collect_calibrations, ["noise_measurements", "calibration_unreadable", "calibration_unpaired"],
            ["calibrations", "calibration_table", "calibration_report"], name="collect_calibrations",
        ),
        Node(measure_darks, ["raw_frames", "calibration_frames", "params:executor"], "dark_measurements", name="measure_darks"),
        Node(collect_darks, "dark_measurements", "darks", name="collect_darks"),
        Node(plot_calibrations, "calibrations", "calibration_figures", name="plot_calibrations", tags="report"),
    ])  # fmt: skip
