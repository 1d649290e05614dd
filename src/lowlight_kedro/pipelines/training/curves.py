"""The curves of a training run as one figure."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES = {"": ("-", "EMA"), "raw_": ("--", "raw")}  # prefix of a column -> line and legend


def _line(axis: Axes, history: pd.DataFrame, column: str, **style: object) -> bool:
    """Draw a column, if there is one with figures; a lone row is a dot."""
    if column not in history or history[column].isna().all():
        return False
    axis.plot(history["kimg"], history[column], marker="." if len(history) < 20 else "", **style)  # type: ignore[arg-type]
    return True


def _panel(axis: Axes, history: pd.DataFrame, column: str, title: str, yscale: str = "linear", color: str = "C0") -> None:
    drawn = _line(axis, history, column, color=color)
    axis.set(title=title, xlabel="kimg", yscale=yscale if drawn and (history[column] > 0).any() else "linear")
    if not drawn:
        axis.text(0.5, 0.5, f"no {column} recorded", ha="center", transform=axis.transAxes)


def _beside(axis: Axes, history: pd.DataFrame, column: str, label: str, yscale: str = "linear") -> None:
    """A second column in the same panel, with its own scale on the right."""
    other = axis.twinx()
    other.set_visible(_line(other, history, column, color="C1", alpha=0.7))
    if other.get_visible():
        other.set_yscale(yscale if (history[column] > 0).any() else "linear")
        other.set_ylabel(label, color="C1")


def _quality(axis: Axes, history: pd.DataFrame, kind: str, title: str) -> None:
    """Validation figures per noise level: one colour each, EMA weights drawn through, raw ones dashed."""
    columns = [name for name in history.columns if name.startswith(f"{kind}_")]
    for number, column in enumerate(columns):
        for prefix, (line, weights) in STYLES.items():
            label = f"sigma {column.split('_')[1]}, {weights}"
            _line(axis, history, prefix + column, color=f"C{number}", linestyle=line, label=label)
    axis.set(title=title, xlabel="kimg")
    if axis.lines:
        axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=max(1, len(columns)))
    else:
        axis.text(0.5, 0.5, "no validation tiles", ha="center", transform=axis.transAxes)


def training_figure(history: pd.DataFrame) -> Figure:
    """Loss, learning rate and gradient norm, speed and waiting, PSNR and SSIM per noise level, over thousands of images."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    _panel(axes[0, 0], history, "loss", "training loss", "log")
    _panel(axes[0, 1], history, "learning_rate", "learning rate")
    _beside(axes[0, 1], history, "gradient_norm", "gradient norm, before shortening", "log")
    _panel(axes[0, 2], history, "images_per_second", "images per second")
    _beside(axes[0, 2], history, "wait_fraction", "fraction of time waiting for data")
    _quality(axes[1, 0], history, "psnr", "validation PSNR (dB, data range 2)")
    _quality(axes[1, 1], history, "ssim", "validation SSIM (data range 2)")
    _panel(axes[1, 2], history, "memory_gib", "peak memory (GiB)")
    for axis in (axes[0, 2], axes[1, 2]):
        axis.set_ylim(bottom=0)
    plt.close(figure)
    return figure
