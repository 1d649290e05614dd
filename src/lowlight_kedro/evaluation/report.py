"""One HTML file that tells an evaluation: every number with its protocol and interval, pictures under a slider, how it was made.

It needs no network and no other file. Tables as CSV and LaTeX are written beside it by the pipeline.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lowlight_kedro.evaluation.page import embedded, filled, template
from lowlight_kedro.evaluation.pictures import calibration_figure, heat, most_detailed
from lowlight_kedro.evaluation.residuals import verdict
from lowlight_kedro.evaluation.statistics import KEYS
from lowlight_kedro.sensor.render import shrunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, CROP = 900, 160  # pixels: of a picture's longer side, and of the part that is shown magnified
PICTURE_BYTES, CROP_BYTES = 120_000, 40_000
LONG = 40  # characters of a cell above which it wraps


@dataclass(frozen=True)
class Report:
    """What a report tells; tables as `statistics.summarised` and `differences` give them, `residuals` and `uncertainty` may be empty.

    Attributes:
        title, command, made: heading, what made it, and when, for people.
        uncertainty: None where nobody was asked for it.
        frames: of `frame_pictures`.
        noise: rows of the noise models used: camera, ISO, gain, read noise, source.
        versions: of programs and machine.
        parameters: as YAML.
    """

    title: str
    command: str
    made: str
    summary: pd.DataFrame
    differences: pd.DataFrame
    residuals: pd.DataFrame
    uncertainty: pd.DataFrame | None
    frames: Sequence[Mapping[str, Any]]
    noise: pd.DataFrame
    versions: Mapping[str, str]
    parameters: str


def frame_pictures(name: str, shown: Mapping[str, NDArray], captions: Mapping[str, str], std: NDArray | None) -> dict[str, Any]:
    """What the report shows of a frame, ready for a file: pictures and crops (data: addresses) by title, captions.

    Args:
        shown: sRGB images (3, H, W) in [0, 1] by title, the long exposure last.
        captions: what stands under each.
        std: (3, H, W), linear, or None.
    """
    *titles, truth = shown
    top, left = most_detailed(shown[truth], min(CROP, *shown[truth].shape[1:]))
    pictures = dict(shown)
    for title in titles:
        pictures[f"error of {title}"] = heat(np.abs(shown[title] - shown[truth]), max(shown[truth].shape[1:]))
    if std is not None:
        pictures["told uncertainty"] = heat(std, max(std.shape[1:]))
    return {
        "frame": name, "captions": dict(captions),
        "pictures": {title: embedded(shrunk(image, SIDE), PICTURE_BYTES) for title, image in pictures.items()},
        "crops": {title: embedded(image[:, top : top + CROP, left : left + CROP], CROP_BYTES) for title, image in pictures.items()},
    }  # fmt: skip


def number(value: float, metric: str) -> str:
    """As a table shows it: dB with two places, indices with four, nothing for what is not known."""
    if not np.isfinite(value):
        return "∞" if value == np.inf else "–"
    return f"{value:.2f}" if metric.startswith("psnr") else f"{value:.4f}"


def with_interval(row: Mapping[Any, Any]) -> str:
    """`26.21 [25.80, 26.60]`; without an interval where there is none."""
    mean = number(row["mean"], row["metric"])
    return mean if np.isnan(row["low"]) else f"{mean} [{number(row['low'], row['metric'])}, {number(row['high'], row['metric'])}]"


def score_tables(summary: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """A table per protocol and scaling, methods by metrics, under a heading that says what is compared; strata as further rows."""
    for keys, part in summary.groupby(list(KEYS[:3]), sort=False):
        rows = {}
        for place, group in part.groupby(["stratum", "of", "method"], sort=False):
            stratum, of, method = place
            where = "all" if stratum == "all" else f"{stratum} {of}"
            first = group.iloc[0]
            fields = {
                "frames": where,
                "method": method,
                "n": f"{first['frames']} ({first['scenes']} scene{'' if first['scenes'] == 1 else 's'})",
            }
            rows[place] = fields | {row["metric"]: with_interval(row) for row in group.to_dict("records")}
        yield f"{keys[0]}: {keys[1]}, {keys[2]}", pd.DataFrame(rows.values())


def latex_tables(summary: pd.DataFrame) -> str:
    """The same for a paper, with booktabs."""

    def cell(text: Any) -> str:
        return str(text).replace("_", r"\_").replace("%", r"\%").replace("–", "--").replace("∞", r"$\infty$")

    tables = []
    for heading, table in score_tables(summary):
        lines = [" & ".join(map(cell, row)) + r" \\" for row in table.fillna("–").itertuples(index=False)]
        head = " & ".join(map(cell, table.columns)) + r" \\"
        tables.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{cell(heading)}; mean and 95\,\% bootstrap interval by scene.}}",
            rf"\begin{{tabular}}{{{'l' * 3 + 'r' * (table.shape[1] - 3)}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ]))  # fmt: skip
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(tables) + "\n"


def score_figure(summary: pd.DataFrame) -> "Figure | None":
    """PSNR of every method by exposure ratio, a panel per protocol and scaling; bars are 95 % intervals by scene."""
    from matplotlib import pyplot as plt

    of = summary[summary["metric"].isin(["psnr", "psnr_srgb"])]
    by_ratio = of[of["stratum"] == "ratio"]
    points = by_ratio if len(by_ratio) else of[of["stratum"] == "all"]
    panels = list(points.groupby(list(KEYS[:3]), sort=False))
    if not panels:
        return None
    columns = min(len(panels), 2)
    figure, axes = plt.subplots(
        -(-len(panels) // columns), columns, figsize=(5.6 * columns, 3.6 * -(-len(panels) // columns)), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (keys, part) in zip(axes.flat, panels, strict=False):
        places = list(dict.fromkeys(part["of"]))
        count = part["method"].nunique()
        for number_of, (method, rows) in enumerate(part.groupby("method", sort=False)):
            x = [places.index(value) + min(0.08, 0.8 / count) * (number_of - (count - 1) / 2) for value in rows["of"]]
            error = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - rows["mean"].to_numpy()))
            axis.errorbar(x, rows["mean"], error, fmt="o-", capsize=3, markersize=4, label=method)
        axis.set_xticks(range(len(places)), ["all frames" if place == "all" else f"x{place}" for place in places])
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_title(f"{keys[0]}, {keys[2]}", fontsize=10)
        axis.set_ylabel("PSNR, dB" + (" (sRGB)" if keys[0] == "linear_rgb" else ""))
        axis.grid(axis="y", color="0.9")
    axes[0, 0].legend(fontsize=8, frameon=False)
    plt.close(figure)
    return figure


def svg(figure: "Figure") -> str:
    """A figure as the address of a vector picture."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _chart(alt: str, figure: "Figure") -> str:
    return f'<div class="scroll" tabindex="0"><img class="chart" alt="{escape(alt)}" src="{svg(figure)}"></div>'


def table_html(table: pd.DataFrame) -> str:
    """A table that scrolls sideways where the page is narrow; sentences in it wrap."""

    def cell(value: Any) -> str:
        text = escape(str(value))
        return f'<td class="long">{text}</td>' if len(text) > LONG else f"<td>{text}</td>"

    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in table.fillna("–").itertuples(index=False))
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _viewer(frame: Mapping[str, Any], index: int) -> str:
    """A frame under the slider: two of its pictures, whole and as a magnified part."""
    names = list(frame["pictures"])
    left, right = names[0], names[1]

    def options(chosen: str) -> str:
        return "".join(f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in names)

    def pair(kind: str) -> str:
        return (
            f'<div class="pair {kind}"><img class="right" alt="{escape(right)}" src="{frame[kind][right]}">'
            f'<img class="left" alt="{escape(left)}" src="{frame[kind][left]}"></div>'
        )

    stored = "".join(
        f'<template data-title="{escape(name)}" data-caption="{escape(frame["captions"].get(name, ""))}" '
        f'data-pictures="{frame["pictures"][name]}" data-crops="{frame["crops"][name]}"></template>'
        for name in names
    )
    return (
        f'<section class="frame"><h3>{escape(frame["frame"])}</h3>'
        f'<div class="choose"><label>left <select class="at-left">{options(left)}</select></label>'
        f'<label>right <select class="at-right">{options(right)}</select></label></div>'
        f'<div class="views">{pair("pictures")}{pair("crops")}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="divider of frame {index + 1}">'
        f'<p class="quiet caption"></p>{stored}</section>'
    )


def residual_table(residuals: pd.DataFrame) -> pd.DataFrame:
    """By method, channel and brightness, over frames, weighted by sites; `correlation` is that of next neighbours."""
    rows, methods = [], residuals["method"].unique().tolist()
    cells = residuals.groupby(["method", "channel", "low"])
    for keys, part in sorted(cells, key=lambda cell: (methods.index(cell[0][0]), "RGB".index(str(cell[0][1])), cell[0][2])):
        weights = part["sites"] / part["sites"].sum()
        high = part["high"].iloc[0]
        square, alike = ((part[name] * weights).sum() for name in ("mean_square", "correlation"))
        rows.append({
            "method": keys[0], "channel": keys[1], "light": f"{keys[2]:g} to {high:g}" if np.isfinite(high) else f"from {keys[2]:g}",
            "sites": int(part["sites"].sum()), "mean square (1)": f"{square:.3f}", "correlation (0)": f"{alike:+.3f}",
            "bias, ‰ of white (0)": f"{1000 * (part['bias'] * weights).sum():+.2f}", "verdict": verdict(square, alike),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _differences(table: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "protocol": f"{row['protocol']}, {row['scaling']}", "metric": row["metric"], "method": row["method"], "against": row["against"],
            "difference": with_interval(row | {"mean": row["difference"]}), "better in": f"{row['better']:.0%} of {row['frames']}",
            "least": number(row["least"], row["metric"]),
        }
        for row in table.to_dict("records")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def report_page(report: Report) -> str:
    """The HTML."""
    chart = score_figure(report.summary)
    empty = '<p class="quiet">Nothing to show here.</p>'
    scores = "".join(f"<h3>{escape(heading)}</h3>{table_html(table)}" for heading, table in score_tables(report.summary))
    few = report.summary["scenes"].max() if len(report.summary) else 0
    note = (
        "One scene only, so no number has an interval."
        if few < 2
        else f"Brackets: 95 % bootstrap interval over {few} scenes at most; with few scenes it is rough."
    )
    return filled(
        "report.html", style=template("report.css"), script=template("report.js"),
        title=escape(report.title), made=escape(report.made), command=escape(report.command), note=escape(note), scores=scores or empty,
        differences=table_html(_differences(report.differences)) if len(report.differences) else empty,
        chart=_chart("PSNR by method and exposure ratio", chart) if chart else empty,
        calibration="" if report.uncertainty is None else "<h2>Is the uncertainty true?</h2>"
        + _chart("coverage, places of the truth, spread against error", calibration_figure(report.uncertainty)),
        residuals=table_html(residual_table(report.residuals)) if len(report.residuals) else empty,
        frames="".join(_viewer(frame, index) for index, frame in enumerate(report.frames)) or empty,
        noise=table_html(report.noise) if len(report.noise) else empty,
        versions=table_html(pd.DataFrame(list(report.versions.items()), columns=["what", "version"])), parameters=escape(report.parameters),
    )  # fmt: skip
