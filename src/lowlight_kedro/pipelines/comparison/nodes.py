"""Nodes of the comparison pipeline."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest
from lowlight_kedro.evaluation.pictures import comparison
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.comparison.options import ComparisonOptions
from lowlight_kedro.pipelines.evaluation.nodes import Lazy, captions, evaluate_frame, pairs_of
from lowlight_kedro.pipelines.evaluation.options import EvaluationOptions
from lowlight_kedro.pipelines.inference.frames import restore_frame
from lowlight_kedro.pipelines.inference.model import Restoration
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.sensor.frame import Frame


def _restore_by(method: str, raw: Callable[[], Frame], paired: float, name: str, shared: Mapping[str, Restoration]) -> dict[str, Any]:
    restored = restore_frame(raw, paired, name, shared[method])
    return {part: restored[part] for part in ("linear", "record")}


def restore_by_methods(
    raw_frames: dict[str, Any], selected: pd.DataFrame, known_pairs: pd.DataFrame, prior: Checkpoint, calibrations: list[dict],
    sensor: SensorOptions, inference: InferenceOptions, options: ComparisonOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """For each selected frame that has a long exposure, and each method, the job to restore it.

    Raises:
        ValueError: a method does not go with the prior, or no frame has a long exposure.
    """
    shared = {name: Restoration(prior, sensor, method.of(inference), calibrations) for name, method in options.methods.items()}
    for restoration in shared.values():
        _ = restoration.guidance  # what does not go together is said before any frame
    ratios = dict(zip(known_pairs["short"], known_pairs["exposure_ratio"], strict=True))
    frames = [name for name in selected["frame"] if name in ratios]
    if not frames:
        raise ValueError("nothing to compare: no selected frame has a long exposure (see pairs)")
    settings = [digest(prior), calibrations, sensor.model_dump()]
    jobs = [
        Job(
            f"{method}/{name}", partial(_restore_by, method, raw_frames[name], ratios[name], name), [raw_frames[name]],
            [settings, restoration.options.model_dump(exclude={"select"}), ratios[name]],
        )
        for name in frames
        for method, restoration in shared.items()
    ]  # fmt: skip
    return Jobs(jobs, shared, executor.build(), "comparing", "restoration")


def evaluate_methods(
    raw_frames: Lazy, selected: pd.DataFrame, known_pairs: pd.DataFrame, restored_by_method: dict[str, Lazy],
    preprocessing: PreprocessingOptions, evaluation: EvaluationOptions, options: ComparisonOptions,
) -> tuple[pd.DataFrame, dict[str, Figure]]:  # fmt: skip
    """A row per frame and method, the scaled input first; and per frame a picture of all of them.

    Raises:
        ValueError: a method failed on a frame; the message is its own.
    """
    rows, pictures, pairs = [], {}, pairs_of(known_pairs)
    for name in (name for name in selected["frame"] if name in pairs):
        records = {method: restored_by_method[f"{method}/{name}"]["record"]() for method in options.methods}
        for method, record in records.items():
            if "error" in record:
                raise ValueError(f"{method} on {name}: {record['error']}")
        lights = {method: restored_by_method[f"{method}/{name}"]["linear"]() for method in options.methods}
        frames = raw_frames[name](), raw_frames[pairs[name].long]()
        figures, shown = evaluate_frame(frames, pairs[name], lights, next(iter(records.values())), preprocessing, evaluation)
        for method in ("scaled", *options.methods):
            own = {key.removeprefix(f"{method}_"): value for key, value in figures.items() if key.startswith(f"{method}_")}
            made = {key: records[method][key] if method in records else 0 for key in ("evaluations", "seconds")}
            rows.append({"frame": name, "method": method} | own | made)
        pictures[name] = comparison(shown, captions(figures, evaluation.metrics, ("scaled", *options.methods)), evaluation.picture_crop)
    return pd.DataFrame(rows), pictures
