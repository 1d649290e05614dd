"""Nodes of the inference pipeline."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lowlight_kedro.evaluation.page import Entry
from lowlight_kedro.evaluation.pictures import contact_sheet
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions, SensorOptions
from lowlight_kedro.sensor.dark_signal import Darks, digest_of_fitting
from lowlight_kedro.sensor.render import shrunk

logger = logging.getLogger(__name__)

LARGE = 4e6  # pixels of a frame whose mean takes so long that the time is told before

Restored = dict[str, dict[str, Callable[[], Any]]]


def _all_of_input(frames: pd.DataFrame, named: str | list[str]) -> pd.DataFrame:
    """All of them, once it is sure that they are what was named: the catalog knows it only from the command line."""
    places = [Path(place).expanduser().resolve() for place in ([named] if isinstance(named, str) else named)]
    strange = [path for path in frames["path"] if not any(Path(path).resolve().is_relative_to(place) for place in places)]
    if strange:
        raise ValueError(f"{strange[0]} is not of inference.input={named}; give it on the command line: --params inference.input=...")
    return frames


def select_frames(frames: pd.DataFrame, options: InferenceOptions) -> pd.DataFrame:
    """The frames to be restored: all that `options.input` names, else those of the raw folder that `options.select` says.

    Raises:
        ValueError: none is left, or the input did not reach the catalog.
    """
    if options.input is not None:
        return _all_of_input(frames, options.input)
    chosen = frames[frames["data_type"].isin(options.select.data_types) & frames["split"].isin(options.select.splits)]
    if chosen.empty:
        raise ValueError(
            f"no frame to restore: of {len(frames)} raws none has data_type in {options.select.data_types} and split in "
            f"{options.select.splits}; widen inference.select"
        )
    return chosen


def restore_frames(
    raw_frames: dict[str, Any], selected: pd.DataFrame, pairs: pd.DataFrame, prior: Any,
    calibrations: list[dict], darks: list[Darks], sensor: SensorOptions, options: InferenceOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """For each selected frame the job to restore it by `prior`, a `Checkpoint`.

    Raises:
        ValueError: guidance, estimate and prior do not go together.
    """
    from lowlight_kedro.pipelines.inference.frames import (
        Restoration,  # the raws are listed and their headers read before
        restore_frame,  # here, because torch takes a second to import:
    )
    from lowlight_kedro.pipelines.inference.outputs import most_bytes

    shared = Restoration(prior, sensor, options, calibrations, darks)
    _ = shared.guidance  # builds the network: what does not go together is said before any frame
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    settings = [shared.prior.digest, calibrations, sensor.model_dump(), options.describe(), shared.code]
    jobs = []
    for row in selected[["frame", "camera", "iso", "exposure_s", "height", "width"]].to_dict("records"):
        name, height, width = str(row["frame"]), int(row["height"]), int(row["width"])
        jobs.append(Job(
            name, "restoration", partial(restore_frame, raw_frames[name], ratios.get(name), name), [raw_frames[name]],
            [settings, ratios.get(name), digest_of_fitting(darks, row)],
            parts=options.files, size=most_bytes(options.files, height, width),
        ))  # fmt: skip
    pixels = float((selected["height"] * selected["width"]).mean()) if len(selected) else 0.0
    pixels = min(pixels, options.crop[2] * options.crop[3]) if options.crop else pixels
    if pixels > (LARGE if options.estimate == "mean" else 0):
        evaluations, seconds = shared.expected_seconds(pixels)
        logger.warning(
            "estimate %s: the network is evaluated up to %d times for a frame, here at most about %.0f s for %.1f megapixels",
            options.estimate, evaluations, seconds, pixels / 1e6,
        )  # fmt: skip
    return Jobs(jobs, shared, executor.build(), "restoring", "frame")


def show_restored(restored: Restored, selected: pd.DataFrame) -> Any:  # a Figure, but of slow imports
    """The first dozen restored frames on one sheet; those that could not be restored are listed, each with its reason.

    Raises:
        ValueError: no frame could be restored.
    """
    records = {name: restored[name]["record"]() for name in selected["frame"]}
    failed = "".join(f"\n  {name}: {record['error']}" for name, record in records.items() if "error" in record)
    names = [name for name, record in records.items() if "error" not in record and "preview" in restored[name]][:12]
    if not names:
        raise ValueError(f"no frame could be restored:{failed}" if failed else "no frame has a preview; add it to inference.files")
    if failed:
        logger.warning("%d of %d frames could not be restored:%s", failed.count("\n  "), len(records), failed)
    return contact_sheet({name: restored[name]["preview"]() for name in names})


def index_pages(restored: Restored, selected: pd.DataFrame, options: InferenceOptions) -> list[Entry]:
    """All frames that lie there for the index, this run's first: each with a small picture, or with the reason why it has none."""
    entries = []
    for name in [*selected["frame"], *sorted(set(restored) - set(selected["frame"]))]:
        record = restored[name]["record"]()
        if "error" in record:
            entries.append(Entry(name, None, record))
        elif "page" in restored[name]:  # somebody may have taken the files of an earlier run away
            shown = restored[name].get("preview")
            picture = None if shown is None else shrunk(shown(), options.page.index_side).astype(np.float16)  # of all frames at once
            entries.append(Entry(name, picture, record))
    return entries
