"""Every number of one restored frame as a row that says what it is of: protocol, crop, scaling, method, scene, ratio, ISO, light."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.datasets.libraw import published_picture
from lowlight_kedro.evaluation.coverage import coverage, places, spread_against_error
from lowlight_kedro.evaluation.protocols import PROTOCOLS, Score, raw_scores, srgb_scores
from lowlight_kedro.evaluation.residuals import residuals
from lowlight_kedro.evaluation.statistics import differences, light_stratum, summarised
from lowlight_kedro.sensor.frame import Frame, balanced, crop, normalise, range_dn
from lowlight_kedro.sensor.noise import PoissonGaussian

logger = logging.getLogger(__name__)

INPUT = "scaled"  # the method that does nothing: the input times the exposure ratio
ABOUT = ("frame", "scene", "ratio", "iso", "camera", "light", "light_mean")  # what every row of a frame begins with
SCORE = tuple(part.name for part in fields(Score))
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """A row of the table of pairs; what was not measured is None, and then the frames are taken to be aligned."""

    long: str
    nominal: float
    measured: float | None
    shift: tuple[float, float]
    scene: str = ""


def pairs_of(pairs: pd.DataFrame) -> dict[str, Pair]:
    """By the name of the short exposure."""
    by_frame = {}
    for row in pairs.to_dict("records"):
        measured = float(row.get("measured_ratio", np.nan))
        checked = bool(np.isfinite(measured))
        shift = (row["shift_y"] + row["residual_y"], row["shift_x"] + row["residual_x"]) if checked else (0.0, 0.0)
        scene = str(row.get("scene", row["short"]))
        by_frame[row["short"]] = Pair(row["long"], float(row["exposure_ratio"]), measured if checked else None, shift, scene)
    return by_frame


def _linear_scores(figures: Mapping[str, Any], titles: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[str, Score]]:
    """The figures of `linear_rgb` in the words of the other protocols."""
    region = f"still and unsaturated, {figures['compared_fraction']:.0%}"
    for title in titles:
        for metric in metrics:
            for space in ("linear", "srgb"):
                value = figures[f"{title}_{metric}_{space}"]
                yield (
                    title,
                    Score("linear_rgb", region, "measured ratio", f"{metric}_{space}", value, figures["white_dn"], figures["brightness"]),
                )


def _published(
    name: str, frames: tuple[Frame, Frame], pair: Pair, lights: Mapping[str, NDArray], record: Mapping[str, Any],
    demosaic: Callable[[Frame], NDArray], picture: Callable[[], NDArray] | None,
) -> Iterator[tuple[str, Score]]:  # fmt: skip
    """Scores by a published protocol, of `lights` and of the input; at the ratio of the headers, nothing moved or masked."""
    short, long = (crop(frame, *record["crop"]) if record["crop"] else frame for frame in frames)
    factor = np.float32(pair.nominal / record["exposure_ratio"])
    images = {title: light * factor for title, light in lights.items()}
    if PROTOCOLS[name].space == "raw":
        sites = balanced(normalise(short), short.cfa, short.white_balance, short.shading) * np.float32(pair.nominal)
        scores = raw_scores(name, {INPUT: np.broadcast_to(sites, (3, *sites.shape)), **images}, long, range_dn(frames[0]))
    elif picture is None or record["crop"]:
        raise ValueError("it needs LibRaw's picture of the long exposure and whole frames: restore without inference.crop")
    else:
        images = {INPUT: demosaic(short) * np.float32(pair.nominal), **images}
        scores = srgb_scores(name, images, long.camera_to_srgb, picture(), long.white_level)
    part = f"; of the part {list(record['crop'])}" if record["crop"] else ""
    for title, found in scores.items():
        for score in found:
            yield title, Score(**(asdict(score) | {"region": score.region + part}))


def _residual_rows(short: Frame, lights: Mapping[str, NDArray], record: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    noise = record["noise"]
    if not {"gain", "read_noise"} <= noise.keys():
        raise ValueError("the record does not tell gain and read noise")
    short = crop(short, *record["crop"]) if record["crop"] else short
    model, signal = PoissonGaussian(noise["gain"], noise["read_noise"]), normalise(short)
    for title, light in lights.items():
        shaded = light if short.shading is None else light / short.shading
        for row in residuals(signal, shaded, short.cfa, short.white_balance, record["exposure_ratio"], model):
            yield title, row


def score_frame(
    name: str, frames: tuple[Frame, Frame], pair: Pair, lights: Mapping[str, NDArray], record: Mapping[str, Any],
    figures: Mapping[str, Any], metrics: Sequence[str], protocols: Sequence[str], demosaic: Callable[[Frame], NDArray],
    picture: Callable[[], NDArray] | None,
) -> dict[str, Rows]:  # fmt: skip
    """Rows of `scores` and `residuals` of a frame restored by one or more methods. What a protocol cannot score is told and left out.

    Args:
        name: of the short exposure.
        frames: the short and the long exposure as they were read.
        lights: restored light (3, H, W) by method, at the exposure ratio of `record`.
        figures: of `evaluate_frame`, for `linear_rgb`.
        protocols: names of PROTOCOLS.
        demosaic: of the input as it is shown.
        picture: LibRaw's picture of the long exposure, (3, H, W) in [0, 1].
    """
    about = {
        "frame": name, "scene": pair.scene or name, "ratio": pair.nominal, "iso": frames[0].iso, "camera": frames[0].camera,
        "light": light_stratum(float(figures["light_mean"])), "light_mean": figures["light_mean"],
    }  # fmt: skip
    scores: Rows = []
    for protocol in protocols:
        if PROTOCOLS[protocol].space == "linear":
            found = _linear_scores(figures, (INPUT, *lights), metrics)
        else:
            if max(map(abs, pair.shift)) >= 1:
                logger.warning("%s: %s moves nothing, but the long exposure lies %.1f, %.1f pixels off", name, protocol, *pair.shift)
            found = _published(protocol, frames, pair, lights, record, demosaic, picture)
        try:
            scores += [about | {"method": title} | asdict(score) for title, score in found]
        except ValueError as error:
            logger.warning("%s: not scored by %s: %s", name, protocol, error)
    try:
        remains = [about | {"method": title} | row for title, row in _residual_rows(frames[0], lights, record)]
    except ValueError as error:
        logger.warning("%s: no residuals: %s", name, error)
        remains = []
    return {"scores": scores, "residuals": remains}


def uncertainty_rows(image: NDArray, truth: NDArray, variance: NDArray, mask: NDArray) -> Rows:
    """Coverage, places of the truth and spread against error as rows of one table: kind, at, value, count; see `evaluation.coverage`."""
    fractions, bins = coverage(image, truth, variance, mask), places(image, truth, variance, mask)
    total = int(bins.sum())
    held = [
        {"kind": "coverage", "at": int(name[-2:]) / 100, "value": fraction, "count": total}
        for name, fraction in fractions.items()
        if "_" in name
    ]
    place = [
        {"kind": "place", "at": (n + 0.5) / len(bins), "value": count / total, "count": total} for n, count in enumerate(bins.tolist())
    ]
    spread = [
        {"kind": "spread", "at": spread, "value": error, "count": count}
        for spread, error, count in spread_against_error(image, truth, variance, mask)
    ]
    return held + place + spread


def picture_of(raw: Callable[[], Frame]) -> Callable[[], NDArray] | None:
    """What LibRaw shows of a raw, made when it is called; None where there is no file."""
    path = getattr(raw, "path", None)
    return None if path is None else partial(published_picture, path)


def summarise_scores(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means with intervals by scene, over all frames and by stratum; and differences on the same frames: to the input, and of several
    methods to the first of them.
    """
    if scores["scene"].nunique() < 2:
        logger.warning("one scene only: means have no interval, for frames of one scene are no independent trials")
    # Fractions of the frame that was still differ by frame: one protocol all the same.
    scores = scores.assign(region=scores["region"].where(scores["protocol"] != "linear_rgb", "still and unsaturated"))
    methods = [name for name in scores["method"].unique() if name != INPUT]
    tables = [differences(scores, INPUT)]
    if len(methods) > 1:
        tables.append(differences(scores[scores["method"] != INPUT], methods[0]))
    return summarised(scores), pd.concat(tables, ignore_index=True)
