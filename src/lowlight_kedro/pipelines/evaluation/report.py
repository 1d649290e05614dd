"""The node that writes the report of an evaluation, and what it needs of each frame."""

import platform
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel

from lowlight_kedro.evaluation.report import Report, frame_pictures, latex_tables, report_page
from lowlight_kedro.version import __version__

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
