"""The training loop, as a generator of states: whoever iterates decides what is saved where."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.order import augment, generator_for
from lowlight_kedro.diffusion.scaling import Scaling


class NonFiniteLossError(ValueError):
    """The loss became infinite or not a number; the message names the tiles of the batch."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Counts in images; `kimg` = thousands of them.

    Attributes:
        batch_size: images per update. batch_gpu: images per pass; updates accumulate batch_size / batch_gpu passes.
        learning_rate: of Adam, ramped up linearly over `ramp_kimg` and down to 0 over the last `cooldown` share.
        ema_halflife_kimg: half-life of the weights' running mean. ema_rampup: half-life is at most this share of
            the images seen, so that early weights are forgotten (Karras et al. 2022, .05).
        kimg_per_tick: a row of the history each. snapshot_ticks: a state is yielded each.
        max_gradient: norm to which a larger gradient of an update is shortened; None: never.
        crop: side of the random crops taken from tiles; None for whole tiles.
        precision: `fp32`, or `bf16` for autocast of the network.
    """

    total_kimg: float
    batch_size: int
    batch_gpu: int
    learning_rate: float
    ramp_kimg: float
    cooldown: float
    ema_halflife_kimg: float
    ema_rampup: float
    kimg_per_tick: float
    snapshot_ticks: int
    max_gradient: float | None
    crop: int | None
    precision: str
    seed: int

    @property
    def total_images(self) -> int:
        """Images of the whole run, whole batches."""
        return -(-round(self.total_kimg * 1000) // self.batch_size) * self.batch_size

    def rate_at(self, images: int) -> float:
        """Learning rate for the update that starts at this image count."""
        up = min((images + self.batch_size) / max(self.ramp_kimg * 1000, 1), 1)
        left = (self.total_images - images) / self.total_images
        return self.learning_rate * up * min(left / self.cooldown if self.cooldown else 1, 1)

    def ema_keep(self, images: int) -> float:
        """Weight of the old mean in the update that ends at this image count."""
        halflife = min(self.ema_halflife_kimg * 1000, max(images * self.ema_rampup, 1e-8))
        return 0.5 ** (self.batch_size / halflife)


@dataclass
class State:
    """All that a run is: enough to go on with it as if it had never stopped."""

    images: int
    denoiser: Denoiser
    ema: Denoiser
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the updates since the last row of the history

    @classmethod
    def fresh(cls, denoiser: Denoiser) -> "State":
        """At image 0."""
        ema = deepcopy(denoiser).requires_grad_(False).eval()
        optimizer = torch.optim.Adam(denoiser.parameters(), fused=True)
        return cls(0, denoiser, ema, optimizer)


def train_step(
    state: State, passes: Sequence[Tensor], schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor],
) -> float:  # fmt: skip
    """One update of weights and EMA from the tiles of one batch, cut into passes; returns the mean loss.

    Tiles go to the device as they are stored; cropping first leaves less to `decode`.
    """
    total = torch.zeros((), device=device)
    for number, tiles in enumerate(passes):
        generator = generator_for("train", schedule.seed, state.images + number * schedule.batch_gpu)
        noise_generator = generator_for("noise", schedule.seed, state.images + number * schedule.batch_gpu, device)
        cropped = augment(tiles.to(device, non_blocking=True), schedule.crop, generator)
        x0 = scaling.to_network(decode(cropped))
        noisy = corruption(x0, noise_generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bf16"):
            loss = denoising_loss(state.denoiser, x0, noisy.x, noisy.sigma, noisy.weight).mean() / len(passes)
        loss.backward()
        total += loss.detach()
    if schedule.max_gradient is not None:
        torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), schedule.max_gradient)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.images)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.images += schedule.batch_size
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.denoiser.parameters()), 1 - schedule.ema_keep(state.images))
    return float(total)


def train(
    state: State, batches: Callable[[int, int], Iterator[tuple[list[str], Tensor]]], schedule: Schedule, *,
    decode: Callable[[Tensor], Tensor], scaling: Scaling, corruption: Corruption, device: torch.device,
    validate: Callable[[State], dict[str, Any]], on_step: Callable[[State, float], None], should_stop: Callable[[], bool],
) -> Iterator[State]:  # fmt: skip
    """Train from `state.images` to the end; yields the state at every snapshot, after the last image, and when stopped.

    The same object each time; a run that is already complete yields it once.

    Args:
        batches: (first image, last image) -> (names, tiles (batch_size, C, S, S)) in the order of `index_batches`.
        decode: tiles as `batches` gives them, on the device, to float32 in the tile domain.
        validate: figures for the history, once per tick.
        on_step: called after each update with the state and the loss.
        should_stop: asked after each update; True yields the state and ends.

    Raises:
        NonFiniteLossError: the update is made in memory by then; what was saved at the last yield is sound.
    """
    if state.images >= schedule.total_images:
        yield state
        return
    tick_images = max(round(schedule.kimg_per_tick * 1000), schedule.batch_size)
    for names, tiles in batches(state.images, schedule.total_images):
        loss = train_step(state, tiles.split(schedule.batch_gpu), schedule, scaling, corruption, device, decode)
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
