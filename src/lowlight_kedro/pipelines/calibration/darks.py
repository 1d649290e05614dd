"""Darks by camera, ISO, exposure time and size: measured by the calibration pipeline, or from a folder that the command names."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from lowlight_kedro.datasets.raw import RawFile
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.pairing import read_headers
from lowlight_kedro.sensor.dark_map import DarkMap, measure_dark_map
from lowlight_kedro.sensor.dark_signal import About, Darks, alike

logger = logging.getLogger(__name__)

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
    told = rows[rows["iso"] > 0]
    shapes = zip(told["height"].astype(int), told["width"].astype(int), strict=True)
    return alike(zip(told["frame"], zip(told["camera"], told["iso"], told["exposure_s"], shapes, strict=True), strict=True))


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
        plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in camera)
        name = f"{plain}_iso{iso:g}_{exposure_s:g}s_{height}x{width}"
        jobs.append(Job(name, "darks", partial(_measured, raws), raws, names))
    return Jobs(jobs, None, executor.build(), "darks", "set")


def collect_darks(dark_measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, DarkMap]:
    """The maps by name; darks that were left out are told."""
    for parts in dark_measurements.values():
        _tell_left_out(parts["record"]())
    return {name: parts["map"]() for name, parts in dark_measurements.items() if "map" in parts and "error" not in parts["record"]()}
