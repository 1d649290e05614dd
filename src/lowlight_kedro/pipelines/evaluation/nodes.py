"""Nodes of the evaluation pipeline."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.evaluation.metrics import METRICS, measure
from lowlight_kedro.evaluation.pictures import bars, comparison
from lowlight_kedro.pipelines.evaluation.options import EvaluationOptions
from lowlight_kedro.pipelines.preprocessing.options import PreprocessingOptions
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor.frame import Frame, crop
from lowlight_kedro.sensor.render import render

logger = logging.getLogger(__name__)

Lazy = dict[str, Callable[[], Any]]
Restored = dict[str, Lazy]


def _light(frame: Frame, part: list[int] | None, options: PreprocessingOptions) -> NDArray:
    return options.demosaicer.demosaic(crop(frame, *part) if part else frame)


def _comparable(selected: pd.DataFrame, known_pairs: pd.DataFrame, restored: Restored) -> list[str]:
    """The selected frames that were restored and have a long exposure."""
    paired = set(known_pairs["short"])
    return [name for name in selected["frame"] if name in paired and "error" not in restored[name]["record"]()]


def _compare(images: dict[str, NDArray], truth: Frame, names: list[str]) -> tuple[dict[str, float], dict[str, NDArray]]:
    """Figures of every image but the last against the last, in linear RGB and in sRGB; and the sRGB images."""
    metrics = {name: choose("metric", METRICS, name) for name in names}
    display = {title: render(image, truth.camera_to_srgb) for title, image in images.items()}
    *titles, reference = images
    figures: dict[str, float] = {}
    for space, drawn in (("linear", images), ("srgb", display)):
        for title in titles:
            values = measure(drawn[title], drawn[reference], metrics)
            figures |= {f"{title}_{metric}_{space}": value for metric, value in values.items()}
    return figures, display


def evaluate_frames(
    raw_frames: Lazy, selected: pd.DataFrame, known_pairs: pd.DataFrame, restored: Restored,
    preprocessing: PreprocessingOptions, options: EvaluationOptions,
) -> Iterator[tuple[dict[str, dict], dict[str, Figure]]]:  # fmt: skip
    """Compare each restored frame that has a long exposure; yields its figures and its picture.

    Raises:
        ValueError: there is nothing to compare.
    """
    longs = dict(zip(known_pairs["short"], known_pairs["long"], strict=True))
    names = _comparable(selected, known_pairs, restored)
    if not names:
        raise ValueError("nothing to evaluate: no restored frame has a long exposure (see pairs and the records of restored)")
    for name in tqdm(names, desc="evaluating", unit="frame"):
        record = restored[name]["record"]()
        try:
            truth = raw_frames[longs[name]]()
            scaled = _light(raw_frames[name](), record["crop"], preprocessing) * np.float32(record["exposure_ratio"])
        except ValueError as error:
            logger.warning("not evaluated: %s: %s", name, error)
            yield {name: {"frame": name, "error": str(error)}}, {}
            continue
        images = {"scaled": scaled, "restored": restored[name]["linear"](), "long": _light(truth, record["crop"], preprocessing)}
        figures, display = _compare(images, truth, options.metrics)
        kept = ("exposure_ratio", "iso", "guidance", "estimate", "evaluations", "seconds")
        row = {"frame": name, "long": longs[name]} | {key: record[key] for key in kept} | figures
        yield {name: row}, {name: comparison(display, _captions(figures, options.metrics), options.picture_crop)}


def _captions(figures: dict[str, float], metrics: list[str]) -> dict[str, str]:
    return {
        title: ", ".join(f"{metric.upper()} {figures[f'{title}_{metric}_srgb']:.3g}" for metric in metrics) + " (sRGB)"
        for title in ("scaled", "restored")
    }


def summarise(
    frame_metrics: Lazy, selected: pd.DataFrame, known_pairs: pd.DataFrame, restored: Restored
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row per frame, and the means over frames; PSNR and SSIM have data_range 1.

    Raises:
        ValueError: no frame could be evaluated.
    """
    names = _comparable(selected, known_pairs, restored)
    rows = [row for name in names if "error" not in (row := frame_metrics[name]())]
    if not rows:
        raise ValueError("no frame could be evaluated; see the warnings above")
    table = pd.DataFrame(rows)
    figures = table.filter(regex="^(scaled|restored)_").mean()
    return table, {"frames": len(table), "data_range": 1.0, "mean": figures.to_dict()}


def plot_evaluation(table: pd.DataFrame) -> Figure:
    """sRGB PSNR per frame, before and after."""
    before, after = (dict(zip(table["frame"], table[f"{title}_psnr_srgb"], strict=True)) for title in ("scaled", "restored"))
    return bars(before, after, ("exposure-scaled", "restored"), "PSNR (dB, sRGB, data range 1)")
