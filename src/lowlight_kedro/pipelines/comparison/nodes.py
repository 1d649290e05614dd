"""Nodes of the comparison pipeline: the same frames by several methods, each from prior to scores, in one table."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from lowlight_kedro.bounds import Count
from lowlight_kedro.datasets.rawtherapee import PLAIN, Denoising, rawtherapee
from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest
from lowlight_kedro.evaluation.baselines import BASELINES, demosaicnet, denoise_signal
from lowlight_kedro.evaluation.pictures import comparison
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.evaluation.nodes import EvaluationOptions, Lazy, captions, evaluate_frame, report_frame, tell_once
from lowlight_kedro.pipelines.evaluation.scores import ABOUT, SCORE, pairs_of, picture_of, score_frame
from lowlight_kedro.pipelines.inference.frames import Restoration, exposed, restore_light, valid_json
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.options import ExecutorOptions, Options, SensorOptions, checked, known
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions, find_demosaicer
from lowlight_kedro.restoration.guidance import GUIDANCE
from lowlight_kedro.sensor.dark_signal import Darks, digest_of_fitting
from lowlight_kedro.sensor.demosaic import Demosaicer
from lowlight_kedro.sensor.frame import Frame, balanced, mosaic_only, shaded

logger = logging.getLogger(__name__)


RAWTHERAPEE = {"rawtherapee": Denoising(), "rawtherapee:plain": PLAIN}  # the first is its best of eight ways at x100 (docs/quality.md)
CLASSICAL = {2: "malvar2004", 6: "lmmse"}  # the demosaicer of a denoiser that names none, by the period of the mosaic


def _demosaicer(name: str) -> Demosaicer:
    """One that pipelines know, or `demosaicnet`."""
    return demosaicnet if name == "demosaicnet" else find_demosaicer(name)


def parts_of(name: str) -> tuple[str | None, str | None]:
    """Denoiser and demosaicer of a baseline's name, None where it names none, as RawTherapee, which does both.

    Raises:
        ValueError: neither is known.
    """
    first, _, second = name.partition("+")
    if name in RAWTHERAPEE:
        return None, None
    denoiser, demosaicer = (first, second or None) if first in BASELINES else (None, first)
    if denoiser is None and second:
        raise ValueError(f"unknown denoiser {first!r} of baseline {name!r}; choose of: {', '.join(BASELINES)}")
    if demosaicer is not None:
        try:
            _demosaicer(demosaicer)
        except ValueError as error:
            others = ", ".join((*BASELINES, *RAWTHERAPEE, "demosaicnet"))
            raise ValueError(f"unknown baseline {name!r}: none of {others}, and {error}") from error
    return denoiser, demosaicer


def _developed(name: str, signal: NDArray, noise: Any, ratio: float, frame: Frame) -> NDArray[np.float32]:
    """By a denoiser and a demosaicer."""
    denoiser, demosaicer = parts_of(name)
    if denoiser is not None:
        if len(frame.cfa) != 2:
            raise ValueError(f"baseline {name} denoises Bayer mosaics only; this frame has another colour filter array")
        height, width = signal.shape  # reflected, a last odd row or column goes on in its own colours
        even = np.pad(signal, ((0, height % 2), (0, width % 2)), mode="reflect")
        signal = denoise_signal(even, noise.gain, noise.read_noise, BASELINES[denoiser])[:height, :width]
    demosaic = _demosaicer(demosaicer or CLASSICAL[len(frame.cfa)])
    return demosaic(balanced(signal * np.float32(ratio), frame.cfa, frame.white_balance, frame.shading), frame.cfa)


def develop_baseline(
    name: str, raw: Callable[[], Frame], paired: float, shared: Restoration
) -> tuple[NDArray[np.float32], dict[str, Any]]:  # fmt: skip
    """White-balanced light (3, H, W) of a frame by a baseline, at the exposure ratio that a restoration would get, and its record.

    Raises:
        ValueError: the baseline does not know this mosaic, or its package is missing.
    """
    begin = time.perf_counter()
    frame, exposure, about = exposed(lambda: mosaic_only(raw()), paired, shared)
    signal, noise = exposure.signal, exposure.noise
    if name in RAWTHERAPEE:
        signal = shaded(signal, frame.shading)
        light = rawtherapee(signal, frame.cfa, frame.white_balance, exposure.exposure_ratio, RAWTHERAPEE[name])
    else:
        try:
            light = _developed(name, signal, noise, exposure.exposure_ratio, frame)
        except ImportError as error:
            raise ValueError(str(error)) from error
    if light.shape[1:] != frame.mosaic_dn.shape:
        raise ValueError(f"baseline {name} gives {light.shape[1:]} pixels of {frame.mosaic_dn.shape} photosites: no comparison by pixel")
    return light, about | {"baseline": name, "evaluations": 0, "seconds": round(time.perf_counter() - begin, 2)}


TAKEN = ("scaled", "long")  # what stands beside the methods in tables and pictures


def _require_free(name: str) -> None:
    if name in TAKEN:
        raise ValueError(f"a method must not be called {' or '.join(TAKEN)}: these stand beside it; got {name}")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$"), checked(_require_free)]  # a folder of results


class Method(Options):
    """One way to restore: a guidance and its estimate, or a baseline. Whatever it does not say is as in `inference`."""

    guidance: Annotated[str, known("guidance", GUIDANCE)] | None = None
    estimate: Literal["mean", "sample", "mean_of_k"] | None = None
    evaluations: Count | None = None
    baseline: Annotated[str, checked(parts_of)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Method":
        if self.baseline is not None and (self.guidance or self.estimate or self.evaluations):
            raise ValueError(f"a method is a baseline or a guidance, got baseline {self.baseline!r} and settings of a guidance beside it")
        if self.baseline is None and not (self.guidance and self.estimate):
            raise ValueError("a method needs guidance and estimate, or baseline")
        return self

    def of(self, inference: InferenceOptions) -> InferenceOptions:
        """The options of inference with this method, at full strength; no standard deviation."""
        return inference.model_copy(update={
            "guidance": inference.guidance.model_copy(update={"name": self.guidance or inference.guidance.name}),
            "estimate": self.estimate or inference.estimate,
            "strength": 1.0,
            "sample": replace(inference.sample, evaluations=self.evaluations or inference.sample.evaluations),
            "uncertainty": replace(inference.uncertainty, probes=0),
        })  # fmt: skip


def _without_null(methods: Any) -> Any:
    """So that `--params comparison.methods.dps=null` takes one out: what is named there is merged with the file."""
    return {name: method for name, method in methods.items() if method is not None} if isinstance(methods, dict) else methods


class ComparisonOptions(Options):
    """All of `params:comparison`."""

    methods: Annotated[dict[Name, Method], BeforeValidator(_without_null), Field(min_length=1)]


def _restore_by(
    method: str, baseline: str | None, raw: Callable[[], Frame], paired: float, name: str, shared: Mapping[str, Restoration]
) -> dict[str, Any]:  # fmt: skip
    if baseline is not None:
        light, record = develop_baseline(baseline, raw, paired, shared[method])
        return {"linear": light, "record": record}
    restored, _, _, record = restore_light(raw, paired, name, shared[method])
    return {"linear": restored.light, "record": record}


def restore_by_methods(
    raw_frames: dict[str, Any], selected: pd.DataFrame, pairs: pd.DataFrame, prior: Checkpoint, calibrations: list[dict],
    darks: list[Darks], sensor: SensorOptions, inference: InferenceOptions, options: ComparisonOptions, executor: ExecutorOptions,
) -> Jobs:  # fmt: skip
    """For each selected frame that has a long exposure, and each method, the job to restore it.

    Raises:
        ValueError: a method does not go with the prior, or no frame has a long exposure.
    """
    shared = {name: Restoration(prior, sensor, method.of(inference), calibrations, darks) for name, method in options.methods.items()}
    for name, restoration in shared.items():
        if options.methods[name].baseline is None:
            _ = restoration.guidance  # what does not go together is said before any frame
    ratios = dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True))
    frames = {row["frame"]: row for row in selected.to_dict("records") if row["frame"] in ratios}
    if not frames:
        raise ValueError("nothing to compare: no selected frame has a long exposure (see pairs)")
    settings = [digest(prior), calibrations, sensor.model_dump()]
    jobs = [
        Job(
            f"{method}/{name}", "restoration",
            partial(_restore_by, method, options.methods[method].baseline, raw_frames[name], ratios[name], name), [raw_frames[name]],
            [settings, restoration.options.describe(), restoration.code, ratios[name], options.methods[method].baseline,
             digest_of_fitting(darks, row)],
        )
        for name, row in frames.items()
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


def _rows(
    name: str, figures: Mapping[str, Any], records: Mapping[str, dict], metrics: list[str], methods: Mapping[str, Method]
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for the scaled input, and one per method with its estimate and what it took."""
    none: dict[str, Any] = {"evaluations": 0, "seconds": 0}
    kinds = [f"{metric}_{kind}" for metric in metrics for kind in ("linear", "srgb")]
    return [
        {"frame": name, "method": method, "estimate": methods[method].estimate if method in methods else None}
        | {kind: figures[f"{method}_{kind}"] for kind in kinds}
        | {key: record[key] for key in none}
        for method, record in {"scaled": none, **records}.items()
    ]


def _working(restored_by_method: Mapping[str, Lazy], frames: list[str], methods: Iterable[str]) -> list[str]:
    """The methods that restored some frame; one that none, as where its package is missing, is told and left out.

    Raises:
        ValueError: none is left.
    """
    working = []
    for method in methods:
        errors = [record.get("error") for frame in frames if (record := restored_by_method[f"{method}/{frame}"]["record"]()) is not None]
        if errors and all(errors):
            logger.warning("method left out: %s restored no frame: %s", method, errors[0])
        else:
            working.append(method)
    if not working:
        raise ValueError("no frame could be compared: no method restored one; see the warnings above")
    return working


def _tell_losses(table: pd.DataFrame) -> None:
    """Methods that are worse than doing nothing, in the mean over frames: most often they had too few evaluations."""
    if "psnr_srgb" not in table:
        return
    means = table.groupby("method", sort=False)[["psnr_srgb", "evaluations"]].mean()
    scaled = means["psnr_srgb"]["scaled"]
    for method, mean in means[means["psnr_srgb"] < scaled].iterrows():
        logger.warning(
            "%s (%.1f dB) is worse than the input, only scaled (%.1f dB): it took %.0f evaluations of the network; give it more by "
            "comparison.methods.%s.evaluations, or read docs/guidance.md", method, mean["psnr_srgb"], scaled, mean["evaluations"], method,
        )  # fmt: skip


def evaluate_methods(
    raw_frames: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame, restored_by_method: dict[str, Lazy],
    preprocessing: PreprocessingOptions, evaluation: EvaluationOptions, options: ComparisonOptions,
) -> Iterator[tuple[dict[str, dict], dict[str, Figure], dict[str, dict]]]:  # fmt: skip
    """For each frame the rows of all methods, a picture of them, and what the report shows of it.

    A frame that one method could not restore is left out, with a warning: means over frames shall be of the same frames.

    Raises:
        ValueError: no method restored a frame.
    """
    tell_once.cache_clear()
    by_frame = pairs_of(pairs)
    names = [name for name in selected["frame"] if name in by_frame]
    methods = _working(restored_by_method, names, options.methods)
    titles = ("scaled", *methods)
    for name in names:
        try:
            records = _records(restored_by_method, name, methods)
            lights = {method: restored_by_method[f"{method}/{name}"]["linear"]() for method in methods}
            frames = raw_frames[name](), raw_frames[by_frame[name].long]()
            record = next(iter(records.values()))
            figures, shown = evaluate_frame(frames, by_frame[name], lights, record, preprocessing, evaluation)
            found = score_frame(
                name, frames, by_frame[name], lights, record, figures, evaluation.metrics, evaluation.protocols,
                preprocessing.demosaicer.demosaic, picture_of(raw_frames[by_frame[name].long]),
            )  # fmt: skip
        except ValueError as error:
            logger.warning("not compared: %s: %s", name, error)
            yield {name: {"frame": name, "error": str(error)}}, {}, {}
            continue
        rows = {"methods": _rows(name, figures, records, evaluation.metrics, options.methods)} | found
        titled = captions(figures, evaluation.metrics, titles)
        picture = comparison(shown, titled, evaluation.picture_crop)
        yield {name: valid_json({"frame": name} | rows)}, {name: picture}, {name: report_frame(name, shown, titled, record)}


def collect_methods(
    method_metrics: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """The rows of all frames: one per frame and method, the scaled input first; scores; residuals.

    Raises:
        ValueError: no frame could be compared.
    """
    paired = set(pairs["short"])
    frames = [row for name in selected["frame"] if name in paired and "error" not in (row := method_metrics[name]())]
    if not frames:
        raise ValueError("no frame could be compared; see the warnings above")
    table, scores, remains = (pd.DataFrame([row for frame in frames for row in frame[kind]]) for kind in ("methods", "scores", "residuals"))
    _tell_losses(table)
    about = [*ABOUT, "method"]
    return table, scores.reindex(columns=[*about, *SCORE]), remains if len(remains) else pd.DataFrame(columns=about)
