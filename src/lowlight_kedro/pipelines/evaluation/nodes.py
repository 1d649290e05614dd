"""Nodes of the evaluation pipeline: what is measured on each restored frame, and the report of all."""

import logging
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from tqdm import tqdm

from lowlight_kedro.evaluation.coverage import coverage, reference_variance, verdict
from lowlight_kedro.evaluation.metrics import METRICS, Metric, MetricUnavailableError, measure, refer
from lowlight_kedro.evaluation.pictures import bars, calibration_figure, comparison
from lowlight_kedro.evaluation.protocols import PROTOCOLS
from lowlight_kedro.evaluation.report import Report, frame_pictures, latex_tables, report_page
from lowlight_kedro.jobs import no_bars
from lowlight_kedro.package import __version__
from lowlight_kedro.pipelines.evaluation.scores import ABOUT, INPUT, SCORE, Pair, pairs_of, picture_of, score_frame, uncertainty_rows
from lowlight_kedro.pipelines.inference.frames import valid_json
from lowlight_kedro.pipelines.options import Options, checked, known
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor.frame import Frame, crop, range_dn, same_white
from lowlight_kedro.sensor.render import render

logger = logging.getLogger(__name__)


def _require_protocol(name: str) -> None:
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; choose of: {', '.join(PROTOCOLS)}")


class EvaluationOptions(Options):
    """All of `params:evaluation`."""

    metrics: Annotated[list[Annotated[str, known("metric", METRICS)]], Field(min_length=1)]
    protocols: list[Annotated[str, checked(_require_protocol)]]
    ratio: Literal["measured", "nominal", "restored"]
    mask: bool
    picture_crop: Annotated[int, Field(ge=16)]


Lazy = dict[str, Callable[[], Any]]
Restored = dict[str, Lazy]
LISTS = {  # of the figures of a frame, what has rows of its own, and the columns that a table without rows has too
    "scores": [*ABOUT, "method", *SCORE],
    "residuals": [*ABOUT, "method", "channel", "low", "high", "sites", "mean_square"],
    "uncertainty": ["frame", "scene", "kind", "at", "value", "count"],
}


def _comparable(selected: pd.DataFrame, pairs: pd.DataFrame, restored: Restored) -> list[str]:
    """The selected frames that were restored and have a long exposure."""
    paired = set(pairs["short"])
    return [name for name in selected["frame"] if name in paired and "error" not in restored[name]["record"]()]


tell_once = cache(logger.warning)  # a missing package holds for thousands of frames; whoever begins a run forgets what was told


def _measured(name: str, image: NDArray, truth: NDArray, mask: NDArray) -> float:
    """A metric by name; nan, and told, where it cannot be had."""
    metric: Metric = choose("metric", METRICS, name)
    try:
        return measure(image, truth, {name: metric}, mask)[name]
    except MetricUnavailableError as error:
        tell_once("not measured: %s", str(error))
        return float("nan")


def _compare(
    images: dict[str, NDArray], truth: Frame, names: list[str], mask: NDArray
) -> tuple[dict[str, float], dict[str, NDArray]]:  # fmt: skip
    """Figures of every image but the last against the last, in linear RGB and in sRGB; and the sRGB images."""
    display = {title: render(image, truth.camera_to_srgb) for title, image in images.items()}
    *titles, reference = images
    figures: dict[str, float] = {}
    for space, drawn in (("linear", images), ("srgb", display)):
        for title in titles:
            figures |= {f"{title}_{name}_{space}": _measured(name, drawn[title], drawn[reference], mask) for name in names}
    return figures, display


def _brightness(pair: Pair, used: float, options: EvaluationOptions) -> float:
    """What brings a frame restored with the ratio `used` to the long exposure."""
    if options.ratio == "restored":
        return 1.0
    return (pair.measured if options.ratio == "measured" and pair.measured else pair.nominal) / used


def _covered(restored: NDArray, light: NDArray, std: NDArray, mask: NDArray, record: dict, long: Frame) -> dict[str, Any]:
    """Coverage of the long exposure; its own noise counts where it has the ISO, and so the noise, of the short one."""
    known = long.iso == record["iso"] and {"gain", "read_noise"} <= record["noise"].keys()
    variance = std.astype(np.float64) ** 2 + (reference_variance(light, long.white_balance, record["noise"]) if known else 0)
    compared = (restored, light, variance, mask)
    return coverage(*compared) | {"coverage_with_noise_of_long": known, "uncertainty": uncertainty_rows(*compared)}


def evaluate_frame(
    frames: tuple[Frame, Frame], pair: Pair, restored: Mapping[str, NDArray], record: dict,
    preprocessing: PreprocessingOptions, options: EvaluationOptions, std: NDArray | None = None,
) -> tuple[dict[str, Any], dict[str, NDArray]]:  # fmt: skip
    """Figures of one frame, and the images compared: the scaled input, those `restored` by title, and the long exposure.

    `record` is of the restoration, `std` the standard deviation of the one called `restored`.
    """
    short, long = same_white(frames)
    if preprocessing.demosaicer.scale(short.cfa) != 1:
        raise ValueError("the reference must have the size of the restored frame: choose a demosaicer other than superpixel")
    reference = refer(short, long, record["crop"], pair.shift, pair.measured, preprocessing.demosaicer.demosaic)
    if not reference.mask.any():
        raise ValueError("nothing can be compared: all of the frame moved or is saturated")
    scaled = preprocessing.demosaicer.demosaic(crop(short, *record["crop"]) if record["crop"] else short)
    factor = _brightness(pair, record["exposure_ratio"], options)
    brightness = np.float32(factor * range_dn(frames[0]) / range_dn(short))
    images = {
        "scaled": reference.of(scaled) * np.float32(record["exposure_ratio"] * factor),
        **{title: reference.of(light) * brightness for title, light in restored.items()},
        "long": reference.light,
    }
    mask = reference.mask if options.mask else np.ones_like(reference.mask)
    figures, display = _compare(images, long, options.metrics, mask)
    if std is not None:
        figures |= _covered(images["restored"], reference.light, reference.of(std) * brightness, mask, record, long)
    measured = {
        "nominal_ratio": pair.nominal, "measured_ratio": pair.measured, "brightness": factor,
        "shift_y": pair.shift[0], "shift_x": pair.shift[1], "compared_fraction": float(mask.mean()),
        "light_mean": float(reference.light.mean()), "white_dn": long.white_level,
    }  # fmt: skip
    return measured | figures, display


def evaluate_frames(
    raw_frames: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame, restored: Restored,
    preprocessing: PreprocessingOptions, options: EvaluationOptions,
) -> Iterator[tuple[dict[str, dict], dict[str, Figure], dict[str, dict]]]:  # fmt: skip
    """Compare each restored frame that has a long exposure; yields its figures, its picture, and what the report shows of it.

    The long exposure is moved over the short one, both are cut to what they have in common, and only still, unsaturated
    pixels count; `compared_fraction` tells how many those are.

    Raises:
        ValueError: there is nothing to compare.
    """
    tell_once.cache_clear()
    by_frame = pairs_of(pairs)
    names = _comparable(selected, pairs, restored)
    if not names:
        raise ValueError("nothing to evaluate: no restored frame has a long exposure (see pairs and the records of restored)")
    for name in tqdm(names, desc="evaluating", unit="frame", disable=no_bars()):
        record, pair = restored[name]["record"](), by_frame[name]
        try:
            frames = raw_frames[name](), raw_frames[pair.long]()
            known = record.get("mean_std") is not None and "std" in restored[name]  # a file may be left of another run, or not be asked for
            std = restored[name]["std"]() if known else None
            lights = {"restored": restored[name]["linear"]()}
            figures, display = evaluate_frame(frames, pair, lights, record, preprocessing, options, std)
            rows = score_frame(
                name, frames, pair, lights, record, figures, options.metrics, options.protocols, preprocessing.demosaicer.demosaic,
                picture_of(raw_frames[pair.long]),
            )  # fmt: skip
        except ValueError as error:
            logger.warning("not evaluated: %s: %s", name, error)
            yield {name: {"frame": name, "error": str(error)}}, {}, {}
            continue
        kept = ("exposure_ratio", "iso", "guidance", "estimate", "evaluations", "seconds")
        row = {"frame": name, "scene": pair.scene or name, "long": pair.long} | {key: record[key] for key in kept} | figures
        titled = captions(figures, options.metrics, (INPUT, "restored"))
        picture = comparison(display, titled, options.picture_crop)
        yield {name: valid_json(row | rows)}, {name: picture}, {name: report_frame(name, display, titled, record, std)}


def captions(figures: Mapping[str, Any], metrics: list[str], titles: Iterable[str]) -> dict[str, str]:
    """What stands under each title of a picture."""
    return {
        title: ", ".join(f"{metric.upper()} {figures[f'{title}_{metric}_srgb']:.3g}" for metric in metrics) + " (sRGB)" for title in titles
    }


def summarise(frame_metrics: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame, restored: Restored) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row per frame, and the means over frames; PSNR and SSIM have data_range 1.

    Raises:
        ValueError: no frame could be evaluated.
    """
    names = _comparable(selected, pairs, restored)
    rows = [row for name in names if "error" not in (row := frame_metrics[name]())]
    if not rows:
        raise ValueError("no frame could be evaluated; see the warnings above")
    table = pd.DataFrame([{key: value for key, value in row.items() if key not in LISTS} for row in rows])
    figures = table.filter(regex="^(scaled|restored)_|^coverage_[0-9]+$|^chi2$").mean()
    judged = verdict(figures.get("coverage_90", float("nan")))
    return table, {"frames": len(table), "data_range": 1.0, "mean": figures.to_dict(), "uncertainty": judged}


def collect_scores(
    frame_metrics: Lazy, selected: pd.DataFrame, pairs: pd.DataFrame, restored: Restored
) -> tuple[pd.DataFrame, ...]:  # fmt: skip
    """The rows of all frames: scores, residuals, uncertainty. A frame of an older run without them is left out."""
    rows = [frame_metrics[name]() for name in _comparable(selected, pairs, restored)]
    about = [{key: row[key] for key in ("frame", "scene") if key in row} for row in rows]
    tables = (pd.DataFrame([of | entry for row, of in zip(rows, about, strict=True) for entry in row.get(kind, [])]) for kind in LISTS)
    return tuple(table if len(table) else pd.DataFrame(columns=columns) for table, columns in zip(tables, LISTS.values(), strict=True))


def plot_uncertainty(uncertainty: pd.DataFrame) -> Figure:
    """Whether the told standard deviation is true: coverage, places of the truth, spread against error."""
    return calibration_figure(uncertainty)


def plot_evaluation(table: pd.DataFrame) -> Figure:
    """sRGB PSNR per frame, before and after."""
    before, after = (dict(zip(table["frame"], table[f"{title}_psnr_srgb"], strict=True)) for title in ("scaled", "restored"))
    return bars(before, after, ("exposure-scaled", "restored"), "PSNR (dB, sRGB, data range 1)")


PACKAGES = ("torch", "numpy", "scikit-image", "torchmetrics", "rawpy", "kedro")
NOISE = ("gain", "read_noise")
MOST_SHOWN = 24  # frames whose pictures are in a report: some 10 MB, which a browser opens


def report_frame(
    name: str, display: Mapping[str, NDArray], captions: Mapping[str, str], record: Mapping[str, Any], std: NDArray | None = None
) -> dict[str, Any]:
    """What the report needs of a frame: pictures ready for the page, and the noise model that it was restored with."""
    noise = {"camera": record.get("camera"), "ISO": record.get("iso")} | {
        key: f"{record['noise'][key]:.4g}" for key in NOISE if key in record["noise"]
    }
    return frame_pictures(name, display, captions, std) | {"noise": noise | {"from": record.get("noise_from")}}


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they would stand in YAML: those that a pipeline uses are typed."""
    return {
        group: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for group, value in parameters.items()
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Programs and machine."""
    found = {"lowlight_kedro": __version__, "Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return found | {"machine": f"{platform.system()} {platform.machine()}"}


def shown_frames(scores: pd.DataFrame, names: Collection[str]) -> list[str]:
    """Frames whose pictures a report holds: all, or where there are more than MOST_SHOWN the worst and as many spread over the others.

    Worst by the mean of their PSNR over methods and protocols.
    """
    known = scores[scores["frame"].isin(names)]
    decibels = known["value"].where(known["metric"].str.startswith("psnr"))
    order = decibels.groupby(known["frame"]).mean().sort_values().index.tolist()  # those without PSNR come last
    if len(order) <= MOST_SHOWN:
        return sorted(order)
    worst, others = order[: MOST_SHOWN // 2], order[MOST_SHOWN // 2 :]
    step = len(others) / (MOST_SHOWN - len(worst))
    return worst + [others[int(step * number)] for number in range(MOST_SHOWN - len(worst))]


def write_report(
    title: str, summary: pd.DataFrame, differences: pd.DataFrame, residuals: pd.DataFrame, uncertainty: pd.DataFrame | None,
    scores: pd.DataFrame, frames: Mapping[str, Callable[[], dict]], parameters: Mapping[str, Any],
) -> tuple[str, str]:  # fmt: skip
    """The page, and its tables for LaTeX; pictures of frames that are not among the scores, as of an older run, are not shown.

    Raises:
        ValueError: there are no scores.
    """
    if summary.empty:
        raise ValueError("no frame was scored, so there is nothing to report; see the warnings above and evaluation.protocols")
    names = shown_frames(scores, frames)
    shown, scored = [frames[name]() for name in names], scores["frame"].nunique()
    more = f"; pictures of {len(names)} of {scored} frames, the worst and some of the others" if len(names) < scored else ""
    report = Report(
        title=title, command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        made=f"{datetime.now():%Y-%m-%d %H:%M}, lowlight_kedro {__version__}{more}",
        summary=summary, differences=differences, residuals=residuals, uncertainty=uncertainty, frames=shown,
        noise=pd.DataFrame([frame["noise"] for frame in shown]).drop_duplicates(), versions=versions(),
        parameters=yaml.safe_dump(plain(parameters), sort_keys=False, allow_unicode=True),
    )  # fmt: skip
    return report_page(report), latex_tables(summary)


def report_evaluation(
    summary: pd.DataFrame, differences: pd.DataFrame, residuals: pd.DataFrame, uncertainty: pd.DataFrame, scores: pd.DataFrame,
    frames: Mapping[str, Callable[[], dict]], parameters: Mapping[str, Any],
) -> tuple[str, str]:  # fmt: skip
    """`write_report` of the frames of this evaluation."""
    title = "Restored frames against their long exposures"
    return write_report(title, summary, differences, residuals, uncertainty, scores, frames, parameters)


def report_methods(
    summary: pd.DataFrame, differences: pd.DataFrame, residuals: pd.DataFrame, scores: pd.DataFrame,
    frames: Mapping[str, Callable[[], dict]], parameters: Mapping[str, Any],
) -> tuple[str, str]:  # fmt: skip
    """`write_report` of several methods on the same frames."""
    title = f"Methods side by side: {', '.join(dict.fromkeys(scores['method']))}"
    return write_report(title, summary, differences, residuals, None, scores, frames, parameters)
