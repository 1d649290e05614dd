"""The training loop, as a generator of states: whoever iterates decides what is saved where."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.share import Share
from lowlight_kedro.diffusion.state import State
from lowlight_kedro.diffusion.step import train_step


class NonFiniteLossError(ValueError):
    """The loss became infinite or not a number; the message names the tiles of the batch."""


def train(
    state: State, batches: Callable[[int, int], Iterator[tuple[list[str], Tensor]]], schedule: Schedule, *,
    decode: Callable[[Tensor], Tensor], scaling: Scaling, corruption: Corruption, device: torch.device,
    validate: Callable[[State], dict[str, Any]], on_step: Callable[[State, float], None], should_stop: Callable[[], bool],
    share: Share | None = None,
) -> Iterator[State]:  # fmt: skip
    """Train from `state.images` to the end; yields the state at every snapshot, after the last image, and when stopped.

    The same object each time; a run that is already complete yields it once.

    Args:
        batches: (first image, last image) -> (names, tiles (B, C, S, S)) in the order of `index_batches`; the tiles are our share.
        decode: tiles as `batches` gives them, on the device, to float32 in the tile domain.
        validate: figures for the history, once per tick.
        on_step: called after each update with the state and the loss.
        should_stop: asked after each update; True yields the state and ends.
        share: this rank's part of every batch; None: all of it.

    Raises:
        NonFiniteLossError: the update is made in memory by then; what was saved at the last yield is sound.
    """
    if state.images >= schedule.total_images:
        yield state
        return
    tick_images = max(round(schedule.kimg_per_tick * 1000), schedule.batch_size)
    for names, tiles in batches(state.images, schedule.total_images):
        loss = float(train_step(state, tiles.split(schedule.batch_gpu), schedule, scaling, corruption, device, decode, share))
        if not math.isfinite(loss):
            raise NonFiniteLossError(f"the loss is {loss} after {state.images} images; tiles of this batch: {', '.join(names)}")
        state.losses.append(loss)
        on_step(state, loss)
        done, stopped = state.images >= schedule.total_images, should_stop()
        ticked = state.images // tick_images > (state.images - schedule.batch_size) // tick_images
        snapshot = ticked and state.images // tick_images % schedule.snapshot_ticks == 0
        if ticked or done:
            row = {
                "kimg": state.images / 1000,
                "loss": sum(state.losses) / len(state.losses),
                "learning_rate": schedule.rate_at(state.images),
            }
            state.history.append(row | validate(state))
            state.losses = []
        if snapshot or done or stopped:
            yield state
        if stopped:
            return
