"""The training loop, as a generator of states: whoever iterates decides what is saved where."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.selection import History
from lowlight_kedro.diffusion.share import Share
from lowlight_kedro.diffusion.state import State
from lowlight_kedro.diffusion.step import Update, train_step

FIX = "expected finite numbers: run validation again, lower training.learning_rate, or set training.max_gradient"


class NonFiniteLossError(ValueError):
    """The loss or its gradient became infinite or not a number; the message names the tiles of the batch."""


@dataclass
class _Unchecked:
    """Updates whose figures are still on the device: reading one back would make the processor wait for the device."""

    updates: list[tuple[int, list[str], Update]] = field(default_factory=list)

    def settle(self, state: State) -> None:
        """Read them all at once into `state.losses` and `state.gradient_norms`.

        Raises:
            NonFiniteLossError: with the names of the first batch that was not finite.
        """
        if not self.updates:
            return
        figures = torch.stack([torch.stack([update.loss, update.gradient_norm]) for _, _, update in self.updates]).tolist()
        for (images, names, _), (loss, norm) in zip(self.updates, figures, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = f"the loss is {loss} and the norm of its gradient {norm}"
                raise NonFiniteLossError(f"{what} after {images} images; tiles of this batch: {', '.join(names)}; {FIX}")
            state.losses.append(loss)
            state.gradient_norms.append(norm)
        self.updates.clear()


def _mean(figures: list[float]) -> float:
    return sum(figures) / len(figures) if figures else math.nan


def _row(state: State, schedule: Schedule, snapshot: bool) -> dict[str, float]:
    """What training itself tells at a tick; nothing that depends on the clock, so that states stay equal bit for bit."""
    return {
        "kimg": state.images / 1000, "loss": _mean(state.losses), "gradient_norm": _mean(state.gradient_norms),
        "learning_rate": schedule.rate_at(state.images), "snapshot": snapshot,
    }  # fmt: skip


def train(
    state: State, batches: Callable[[int, int], Iterator[tuple[list[str], Tensor]]], schedule: Schedule, *,
    decode: Callable[[Tensor], Tensor], scaling: Scaling, corruption: Corruption, device: torch.device,
    validate: Callable[[State], dict[str, Any]], on_step: Callable[[State], None], should_stop: Callable[[], bool],
    on_tick: Callable[[State], None] = lambda state: None, enough: Callable[[History], bool] = lambda history: False,
    share: Share | None = None,
) -> Iterator[State]:  # fmt: skip
    """Train from `state.images` to the end; yields the state at every snapshot, after the last image, and when stopped.

    The same object each time; a run that is already complete yields it once. No state with an update that was not
    found finite is validated or yielded.

    Args:
        batches: (first image, last image) -> (names, tiles (B, C, S, S)) in the order of `index_batches`; the tiles are our share.
        decode: tiles as `batches` gives them, on the device, to float32 in the tile domain.
        validate: figures for the history, once per tick.
        on_step: called after each update; at a tick the device is idle then.
        should_stop: asked after each update; True yields the state and ends.
        on_tick: called when the history has a new row.
        enough: whether a history is long enough; True ends the run as a complete one.
        share: this rank's part of every batch; None: all of it.

    Raises:
        NonFiniteLossError: the update is made in memory by then; what was saved at the last yield is sound.
    """
    if state.images >= schedule.total_images or enough(state.history):
        yield state
        return
    unchecked = _Unchecked()
    for names, tiles in batches(state.images, schedule.total_images):
        before = schedule.tick_at(state.images)
        update = train_step(state, tiles.split(schedule.batch_gpu), schedule, scaling, corruption, device, decode, share)
        unchecked.updates.append((state.images, names, update))
        done, tick = state.images >= schedule.total_images, schedule.tick_at(state.images)
        ticked = done or tick > before
        if ticked or len(unchecked.updates) >= schedule.check_updates:
            unchecked.settle(state)
        on_step(state)
        stopped = should_stop()
        if stopped:
            unchecked.settle(state)
        snapshot = done or (ticked and tick % schedule.snapshot_ticks == 0)
        if ticked:
            state.history.append(_row(state, schedule, snapshot) | validate(state))
            state.losses, state.gradient_norms = [], []
            on_tick(state)
            if enough(state.history):
                state.history[-1]["snapshot"] = done = True
        if snapshot or done or stopped:
            yield state
        if stopped or done:
            return
