"""Pictures to judge a restoration by eye."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowlight_kedro.evaluation.coverage import verdict
from lowlight_kedro.sensor.render import resized

if TYPE_CHECKING:  # slow to import, and most frames need none
    from matplotlib.figure import Figure

# Pixels of an image's longer side in a figure, where it has 400. Of whole frames a figure would hold a GB, and figures lie for a while.
DRAWN = 600
MOST_BARS = 40  # frames with bars of their own; four hundred would be wider than a picture may be


def most_detailed(image: NDArray, side: int) -> tuple[int, int]:
    """Top and left of the square of `side` pixels, on a coarse grid, in which `image` (3, H, W) varies most."""
    rows, columns = image.shape[1:]
    places = [
        (top, left) for top in range(0, max(rows - side, 0) + 1, side // 2) for left in range(0, max(columns - side, 0) + 1, side // 2)
    ]
    return max(places, key=lambda place: float(image[:, place[0] : place[0] + side, place[1] : place[1] + side].std()))


def _eight_bits(image: NDArray) -> NDArray[np.uint8]:
    """An image (3, H, W) in [0, 1] as (H, W, 3), a copy."""
    return np.rint(image.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)


def comparison(images: Mapping[str, NDArray], captions: Mapping[str, str], side: int = 160) -> "Figure":
    """Images (3, H, W) in [0, 1] side by side by title, whole and as a crop at the last one's most detailed place."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    truth = list(images.values())[-1]
    rows, columns = truth.shape[1:]
    side = min(side, rows, columns)
    top, left = most_detailed(truth, side)
    height, width = 4 * rows / columns, 4 * len(images)
    figure, axes = plt.subplots(
        2, len(images), figsize=(width, height + 4.6), height_ratios=[height, 4], squeeze=False, subplot_kw={"xticks": [], "yticks": []},
        gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": (height + 4.1) / (height + 4.6), "wspace": 0.02, "hspace": 0.03},
    )  # fmt: skip
    for column, (title, image) in enumerate(images.items()):
        axes[0, column].imshow(_eight_bits(resized(image, DRAWN)), extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
        axes[0, column].add_patch(Rectangle((left, top), side, side, fill=False, color="yellow"))
        axes[1, column].imshow(_eight_bits(image[:, top : top + side, left : left + side]), interpolation="nearest")
        axes[0, column].set_title(f"{title}\n{captions.get(title, '')}", fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    plt.close(figure)
    return figure


def contact_sheet(images: Mapping[str, NDArray], columns: int = 3, width: float = 4.0) -> "Figure":
    """Images (3, H, W) in [0, 1] in a grid, each under its name."""
    from matplotlib import pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, width * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, image) in zip(axes.flat, images.items(), strict=False):
        step = max(1, max(image.shape[1:]) // 1000)
        axis.imshow(image[:, ::step, ::step].transpose(1, 2, 0))
        axis.set_title(name, fontsize=9)
    plt.close(figure)
    return figure


def _heat_values(values: NDArray, longest: int) -> tuple[NDArray, float]:
    """What `heat` draws, and the value of its lightest colour."""
    step = -(-max(values.shape[1:]) // longest)
    seen = values[:, ::step, ::step].mean(axis=0)
    return seen, max(float(np.percentile(seen, 99.5)), 1e-12)


def heat(values: NDArray, longest: int = 1000) -> NDArray[np.float32]:
    """A small picture (3, h, w) in [0, 1] of non-negative `values` (3, H, W): their mean over channels in matplotlib's magma.

    Black is 0, the lightest colour the 99.5th percentile. Every n-th pixel, so that no side is above `longest`.
    """
    from matplotlib import colormaps

    seen, white = _heat_values(values, longest)
    colours = colormaps["magma"](np.arange(256))[:, :3].astype(np.float32)
    return np.ascontiguousarray(colours[(np.clip(seen / white, 0, 1) * 255).astype(np.uint8)].transpose(2, 0, 1))


def heat_most(values: NDArray, longest: int = 1000) -> float:
    """The value that `heat` draws in its lightest colour."""
    return _heat_values(values, longest)[1]


def heat_colours(number: int) -> list[str]:
    """Colours of `heat` from 0 to its lightest, evenly spaced, as `#rrggbb`."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["magma"](np.linspace(0, 1, number))]


def bars(before: Mapping[str, float], after: Mapping[str, float], labels: tuple[str, str], unit: str) -> "Figure":
    """Two figures per frame, side by side, with their numbers; of more than MOST_BARS frames a point for each, `after` over `before`."""
    from matplotlib import pyplot as plt

    if len(before) > MOST_BARS:
        figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
        axis.scatter(list(before.values()), list(after.values()), s=6, alpha=0.5)
        axis.axline((min(before.values()),) * 2, slope=1, color="0.6", linestyle="--")
        axis.set(xlabel=f"{labels[0]}, {unit}", ylabel=f"{labels[1]}, {unit}", title=f"{len(before)} frames")
        plt.close(figure)
        return figure
    figure, axis = plt.subplots(figsize=(max(5, 1.6 * len(before)), 4), layout="constrained")
    for offset, (label, values) in zip((-0.2, 0.2), zip(labels, (before, after), strict=True), strict=True):
        drawn = axis.bar([place + offset for place in range(len(values))], list(values.values()), 0.4, label=label)
        axis.bar_label(drawn, fmt="%.1f")
    axis.set_xticks(range(len(before)), [name.split("/")[-1] for name in before], fontsize=9)
    axis.set_ylabel(unit)
    axis.margins(y=0.15)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    plt.close(figure)
    return figure


def _coverage_panel(axis: Any, rows: Any) -> None:
    held = rows.groupby("at")["value"].agg(["mean", "min", "max"])
    axis.plot([0.4, 1], [0.4, 1], color="0.6", linestyle="--", label="true")
    axis.errorbar(
        held.index, held["mean"], (held["mean"] - held["min"], held["max"] - held["mean"]), fmt="o", capsize=4,
        color="tab:blue", label="mean, least and most of the frames",
    )  # fmt: skip
    axis.set(xlabel="told fraction within the interval", ylabel="measured fraction", xlim=(0.4, 1.02), ylim=(0.2, 1.02))
    axis.legend(loc="lower right", fontsize=8, frameon=False)


def _place_panel(axis: Any, rows: Any) -> None:
    fractions = rows.groupby("at")["value"].mean()
    axis.bar(fractions.index, fractions * len(fractions), 0.92 / len(fractions), color="tab:blue")
    axis.axhline(1, color="0.4", linestyle="--")
    axis.set(xlabel="place of the long exposure in the told distribution", ylabel="density; even: true", xlim=(0, 1))


def _spread_panel(axis: Any, rows: Any) -> None:
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    for _, frame in rows.groupby("frame"):
        axis.plot(frame["at"], frame["value"], "o-", markersize=3, linewidth=0.8, color="tab:blue", alpha=0.5)
    ends = [rows[["at", "value"]].min().min() * 0.8, rows[["at", "value"]].max().max() * 1.25]
    axis.plot(ends, ends, color="0.6", linestyle="--")
    axis.set(xlabel="told standard deviation, 1 = white", ylabel="rms error", xscale="log", yscale="log", xlim=ends, ylim=ends)
    for side in (axis.xaxis, axis.yaxis):  # less than a decade has no ticks of its own: 1, 2, 5 and nothing between
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter(FormatStrFormatter("%g"))
        side.set_minor_formatter(NullFormatter())


def calibration_figure(rows: Any) -> "Figure":
    """Is a told standard deviation true: coverage, places of the truth, spread against error; the title is the verdict.

    `rows`: a table with frame, kind (coverage, place, spread), at, value.
    """
    from matplotlib import pyplot as plt

    if rows.empty:
        figure, axis = plt.subplots(figsize=(6, 1.6), layout="constrained")
        axis.text(0.5, 0.5, "no frame has a standard deviation: see inference.uncertainty.probes", ha="center")
        axis.set_axis_off()
    else:
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.3), layout="constrained")
        for axis, kind, draw in zip(axes, ("coverage", "place", "spread"), (_coverage_panel, _place_panel, _spread_panel), strict=True):
            draw(axis, rows[rows["kind"] == kind])
        within = rows[(rows["kind"] == "coverage") & np.isclose(rows["at"], 0.9)]["value"].mean()
        figure.suptitle(f"Is the told standard deviation true? {verdict(float(within)).capitalize()}", fontsize=11)
    plt.close(figure)
    return figure


def _curve(axis: Any, entry: Mapping[str, Any]) -> None:
    """One panel of `noise_curves`."""
    points, span = entry["points"], entry["range_dn"]
    gain, read_noise = entry["gain_dn"] / span, entry["read_noise_dn"] / span
    axis.errorbar(
        points["mean"], points["variance"], 2 * np.asarray(points["variance_error"]), fmt=".", color="tab:blue", ecolor="lightsteelblue",
        markersize=4, label="measured, two standard errors",
    )  # fmt: skip
    bright = max([0.01, *points["mean"]])
    signal = np.concatenate([[0], np.geomspace(bright / 1e4, bright, 300)])
    axis.plot(signal, gain * signal + read_noise**2, color="tab:orange", label="fit: gain x signal + read noise$^2$")
    axis.set_yscale("log")
    axis.set_xscale("symlog", linthresh=bright / 100, linscale=0.4)
    axis.set_xticks([tick for tick in axis.get_xticks() if tick == 0 or tick > bright / 99])
    axis.set_xlim(0, bright * 1.2)
    axis.tick_params(which="both", labelsize=7)
    lines = [
        f"from {entry['method']}: {entry['verdict']}",
        f"gain {entry['gain_dn']:.4g} ± {entry['gain_dn_error']:.2g} DN per electron",
    ]
    lines.append(f"read noise {entry['read_noise_dn']:.4g} ± {entry['read_noise_dn_error']:.2g} DN")
    axis.set_title("\n".join(lines), fontsize=9)
    axis.set_xlabel("signal, 1 = white")
    axis.legend(fontsize=7, loc="lower right")


def noise_curves(title: str, entries: Sequence[Mapping[str, Any]]) -> "Figure":
    """Variance against mean with the fit, a panel for each calibration entry that has points."""
    from matplotlib import pyplot as plt

    drawn = [entry for entry in entries if entry["points"]["mean"]]
    figure, axes = plt.subplots(1, max(len(drawn), 1), figsize=(4.6 * max(len(drawn), 1), 4.4), squeeze=False, layout="constrained")
    for axis, entry in zip(axes[0], drawn, strict=False):
        _curve(axis, entry)
    axes[0, 0].set_ylabel("variance, (white - black)$^2$")
    figure.suptitle(title, fontsize=10)
    plt.close(figure)
    return figure
