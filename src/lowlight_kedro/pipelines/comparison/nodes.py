"""Nodes of the comparison pipeline, and its parameters."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import pandas as pd
from matplotlib.figure import Figure
from pydantic import AfterValidator, Field

from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest
from lowlight_kedro.evaluation.pictures import comparison
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.evaluation.nodes import EvaluationOptions, Lazy, captions, evaluate_frame
from lowlight_kedro.pipelines.evaluation.report import report_frame
from lowlight_kedro.pipelines.evaluation.scores import ABOUT, SCORE, pairs_of, picture_of, score_frame
from lowlight_kedro.pipelines.inference.frames import restore_light
from lowlight_kedro.pipelines.inference.model import Restoration
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions, Options
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.sensor.frame import Frame

TAKEN = ("scaled", "long")  # what stands beside the methods in tables and pictures


def _free(name: str) -> str:
    if name in TAKEN:
        raise ValueError(f"a method must not be called {' or '.join(TAKEN)}: these stand beside it; got {name}")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$"), AfterValidator(_free)]  # a folder of results


def _guidance(name: str) -> str:
    choose("guidance", GUIDANCE, name)
    return name


class Method(Options):
    """One way to restore; whatever it does not say is as in `inference`."""

    guidance: Annotated[str, AfterValidator(_guidance)]
    estimate: Literal["mean", "sample", "mean_of_k"]
    evaluations: Annotated[int, Field(ge=1)] | None = None

    def of(self, inference: InferenceOptions) -> InferenceOptions:
        """The options of inference with this method, at full strength; no standard deviation."""
        return inference.model_copy(update={
            "guidance": inference.guidance.model_copy(update={"name": self.guidance}),
            "estimate": self.estimate,
            "strength": 1.0,
            "sample": replace(inference.sample, evaluations=self.evaluations or inference.sample.evaluations),
            "uncertainty": replace(inference.uncertainty, probes=0),
        })  # fmt: skip


class ComparisonOptions(Options):
    """All of `params:comparison`."""

    methods: Annotated[dict[Name, Method], Field(min_length=1)]


logger = logging.getLogger(__name__)


def _restore_by(method: str, raw: Callable[[], Frame], paired: float, name: str, shared: Mapping[str, Restoration]) -> dict[str, Any]:
    restored, _, _, record = restore_light(raw, paired, name, shared[method])
    return {"linear": restored.light, "record": record}


def restore_by_methods(
    raw_frames: dict[str, Any], selected: pd.DataFrame, pairs: pd.DataFrame, prior: Checkpoint, calibrations: list[dict],
    sensor: SensorOptions, inference: InferenceOptions, options: ComparisonOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """For each selected frame that has a long exposure, and each method, the job to restore it.

    Raises:
        ValueError: a method does not go with the prior, or no frame has a long exposure.
    """
    shared = {name: Restoration(prior, sensor, method.of(inference), calibrations) for name, method in options.methods.items()}
    for restoration in shared.values():
        _ = restoration.guidance  # what does not go together is said before any frame
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    frames = [name for name in selected["frame"] if name in ratios]
    if not frames:
        raise ValueError("nothing to compare: no selected frame has a long exposure (see pairs)")
    settings = [digest(prior), calibrations, sensor.model_dump()]
    jobs = [
        Job(
            f"{method}/{name}", "restoration", partial(_restore_by, method, raw_frames[name], ratios[name], name), [raw_frames[name]],
            [settings, restoration.options.describe(), restoration.code, ratios[name]],
        )
        for name in frames
        for method, restoration in shared.items()
    ]  # fmt: skip
    return Jobs(jobs, shared, executor.build(), "comparing", "restoration")


def _records(restored_by_method: Mapping[str, Lazy], name: str, methods: Iterable[str]) -> dict[str, dict]:
    """By method.

    Raises:
        ValueError: a method failed on this frame; the message is its own.
    """
    records = {method: restored_by_method[f"{method}/{name}"]["record"]() for method in methods}
    for method, record in records.items():
        if "error" in record:
            raise ValueError(f"{method}: {record['error']}")
    return records


def _rows(name: str, figures: Mapping[str, Any], records: Mapping[str, dict], metrics: list[str]) -> list[dict[str, Any]]:
    """A row for the scaled input, and one per method with what it took."""
    none: dict[str, Any] = {"evaluations": 0, "seconds": 0}
    kinds = [f"{metric}_{kind}" for metric in metrics for kind in ("linear", "srgb")]
    return [
        {"frame": name, "method": method} | {kind: figures[f"{method}_{kind}"] for kind in kinds} | {key: record[key] for key in none}
        for method, record in {"scaled": none, **records}.items()
    ]


def evaluate_methods(
    raw_frames: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame, restored_by_method: dict[str, Lazy],
    preprocessing: PreprocessingOptions, evaluation: EvaluationOptions, options: ComparisonOptions,
) -> tuple[pd.DataFrame, dict[str, Figure], pd.DataFrame, pd.DataFrame, dict[str, dict]]:  # fmt: skip
    """A row per frame and method, the scaled input first; per frame a picture of all of them; scores, residuals, and what the report shows.

    A frame that one method could not restore is left out, with a warning: means over frames shall be of the same frames.

    Raises:
        ValueError: no frame is left.
    """
    rows, pictures, by_frame, titles = [], {}, pairs_of(pairs), ("scaled", *options.methods)
    scores: list[dict] = []
    remains: list[dict] = []
    shown_frames = {}
    for name in (name for name in selected["frame"] if name in by_frame):
        try:
            records = _records(restored_by_method, name, options.methods)
            lights = {method: restored_by_method[f"{method}/{name}"]["linear"]() for method in options.methods}
            frames = raw_frames[name](), raw_frames[by_frame[name].long]()
            record = next(iter(records.values()))
            figures, shown = evaluate_frame(frames, by_frame[name], lights, record, preprocessing, evaluation)
            found = score_frame(
                name, frames, by_frame[name], lights, record, figures, evaluation.metrics, evaluation.protocols,
                preprocessing.demosaicer.demosaic, picture_of(raw_frames[by_frame[name].long]),
            )  # fmt: skip
        except ValueError as error:
            logger.warning("not compared: %s: %s", name, error)
            continue
        rows += _rows(name, figures, records, evaluation.metrics)
        scores, remains = scores + found["scores"], remains + found["residuals"]
        told = captions(figures, evaluation.metrics, titles)
        pictures[name] = comparison(shown, told, evaluation.picture_crop)
        shown_frames[name] = report_frame(name, shown, told, record)
    if not rows:
        raise ValueError("no frame could be compared; see the warnings above")
    about = [*ABOUT, "method"]
    tables = [pd.DataFrame(scores, columns=[*about, *SCORE]), pd.DataFrame(remains, columns=None if remains else about)]
    return pd.DataFrame(rows), pictures, tables[0], tables[1], shown_frames
