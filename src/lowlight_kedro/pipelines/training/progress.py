"""What a run costs in time and memory, and how its progress is shown: a bar on a terminal, a line per tick elsewhere."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pandas as pd
import torch
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
