"""What a run costs in time and memory, and how its progress is shown: a bar on a terminal, a line per tick elsewhere, curves at the end."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from lowlight_kedro.diffusion.training import State
from lowlight_kedro.pipelines.training.loading import Batches

logger = logging.getLogger(__name__)


COSTS = ["seconds", "images_per_second", "wait_fraction", "memory_gib"]  # columns of the history that no two runs share
SMOOTHED = 50  # updates over which the loss in the bar is averaged


def peak_memory_gib(device: torch.device) -> float:
    """Most memory so far, GiB: tensors on a GPU, or else the resident size of this process without the workers of its loader."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def recent_loss(state: State) -> float | None:
    """Mean of the last losses that were looked at; at the beginning of a tick, that of the tick before."""
    last = state.losses[-SMOOTHED:]
    return sum(last) / len(last) if last else state.history[-1]["loss"] if state.history else None


def tick_line(row: Mapping[str, float], total_kimg: float) -> str:
    """A row of the history with its costs, as one line of a log."""
    rate, left = row["images_per_second"], max(total_kimg - row["kimg"], 0) * 1000
    figures = [f"{name} {figure:.4g}" for name, figure in row.items() if name.startswith(("loss", "gradient", "learning", "psnr"))]
    costs = [f"{rate:.4g} img/s", f"waiting {row['wait_fraction']:.1%}", f"{row['memory_gib']:.2f} GiB"]
    remaining = timedelta(seconds=round(left / rate)) if rate else "?"
    return ", ".join([f"{row['kimg']:.4g} of {total_kimg:.4g} kimg", *figures, *costs, f"{remaining} left"])


def _images(table: pd.DataFrame) -> pd.Index:
    return pd.Index((table["kimg"] * 1000).round().astype(int))  # a key that survives the rounding of a file


def with_costs(history: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]], earlier: pd.DataFrame | None) -> pd.DataFrame:
    """The history with its `COSTS`; those of ticks before this process are taken from the table that an `earlier` one left.

    They are not in the training state, so that a run that was stopped and one that was not leave the same bytes there.
    """
    table, none = pd.DataFrame(list(history)), pd.DataFrame(columns=["kimg", *COSTS], dtype=float)
    if table.empty:
        return none  # a file needs a header to be read again
    before = none if earlier is None or earlier.empty else earlier.reindex(columns=none.columns)
    known = pd.concat([before, pd.DataFrame(list(costs)) if costs else none])
    known = known.set_index(_images(known))
    known = known[~known.index.duplicated(keep="last")].reindex(_images(table))
    return table.assign(**{name: known[name].to_numpy() for name in COSTS})


class Progress:
    """Clock and bar of a run from `state` on. Give `timed(batches)`, `stepped` and `ticked` to the loop.

    `rows` are the `COSTS` of each tick by `kimg`. `seconds`: since the tick before, with validation and saving; `images_per_second`:
    without them; `wait_fraction`: part of that time in which the loop had no batch. A GPU may still be busy while the loop
    waits, so there it is an upper bound. A clock may be given for tests.
    """

    def __init__(
        self, state: State, total_images: int, device: torch.device, *, terminal: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.rows: list[dict[str, float]] = []
        self._device, self._clock, self._total = device, clock, total_images
        self._images, self._began = state.images, clock()
        self._resumed: float | None = None  # when the loop asked for the first batch of this tick
        self._waited = self._last = 0.0
        shown = None if terminal is None else not terminal  # None: tqdm looks whether it writes to a terminal
        self.bar = tqdm(total=total_images, initial=state.images, desc="training", unit="img", unit_scale=True, disable=shown)

    def timed(self, batches: Batches) -> Batches:
        """The same batches; the time spent on waiting for them is counted."""

        def source(start: int, stop: int) -> Iterator[Any]:
            waiting = self._clock()
            iterator = iter(batches(start, stop))
            while True:
                self._resumed = self._resumed if self._resumed is not None else waiting
                batch = next(iterator, None)
                self._waited += self._clock() - waiting
                if batch is None:
                    return
                yield batch
                waiting = self._clock()

        return source

    def _training_seconds(self) -> float:
        return self._clock() - (self._began if self._resumed is None else self._resumed)

    def stepped(self, state: State) -> None:
        """After an update."""
        self._last = self._training_seconds()
        self.bar.update(state.images - self.bar.n)
        if not self.bar.disable:
            loss = recent_loss(state)
            recent = "" if loss is None else f"loss {loss:.3f}, "
            waiting, memory = self._waited / max(self._last, 1e-9), peak_memory_gib(self._device)
            self.bar.set_postfix_str(f"{recent}{state.images / 1000:.1f} kimg, waiting {waiting:.0%}, {memory:.1f} GiB", refresh=False)

    def ticked(self, state: State) -> None:
        """After a new row of the history; its line goes to the log where there is no bar."""
        now, training = self._clock(), max(self._last, 1e-9)
        row = {
            "seconds": now - self._began, "images_per_second": (state.images - self._images) / training,
            "wait_fraction": self._waited / training, "memory_gib": peak_memory_gib(self._device),
        }  # fmt: skip
        self.rows.append({"kimg": state.history[-1]["kimg"]} | row)
        if self.bar.disable:
            logger.info(tick_line(state.history[-1] | row, self._total / 1000))
        self._images, self._began, self._resumed, self._waited = state.images, now, None, 0.0


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
