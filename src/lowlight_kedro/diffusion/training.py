"""The training of a prior: its schedule, its state, one update, which row of its history is the best, and the loop.

The loop is a generator of states: whoever iterates decides what is saved where.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.denoiser import Denoiser, spread_of
from lowlight_kedro.diffusion.draws import Corruption, Draws, augment
from lowlight_kedro.diffusion.ema import Keep, follow
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.share import PassLoss, Share


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Counts in images; `kimg` = thousands of them.

    Attributes:
        batch_size: images per update. batch_gpu: images per pass; updates accumulate batch_size / batch_gpu passes.
        learning_rate: of Adam, ramped up linearly over `ramp_kimg`, constant up to `decay_kimg` (None: for ever) and from
            there falling with the inverse square root of the images (EDM2), and down to 0 over the last fraction `cooldown`.
        averages: running means of the weights by name (`ema.EMAS`); the first is validated and exported.
        kimg_per_tick: a row of the history each. snapshot_ticks: a state is yielded each.
        check_updates: the loss stays on the device for at most so many updates before it is looked at.
        max_gradient: norm to which a larger gradient of an update is shortened; None: never.
        crop: side of the random crops taken from tiles; None for whole tiles.
        precision: `fp32`, or `bf16` for autocast of the network.
    """

    total_kimg: float
    batch_size: int
    batch_gpu: int
    learning_rate: float
    ramp_kimg: float
    decay_kimg: float | None
    cooldown: float
    averages: Mapping[str, Keep]
    kimg_per_tick: float
    snapshot_ticks: int
    check_updates: int
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
        fall = 1 if self.decay_kimg is None else max(images / (self.decay_kimg * 1000), 1) ** -0.5
        left = (self.total_images - images) / self.total_images
        return self.learning_rate * up * fall * min(left / self.cooldown if self.cooldown else 1, 1)

    def ema_keeps(self, images: int) -> dict[str, float]:
        """Weight of the old mean, by name, in the update that ends at this image count."""
        return {name: keep(images, self.batch_size) for name, keep in self.averages.items()}

    def tick_at(self, images: int) -> int:
        """How many ticks are over at this image count."""
        return images // max(round(self.kimg_per_tick * 1000), self.batch_size)


@dataclass
class State:
    """All that a run is: enough to go on with it as if it had never stopped.

    `averages`: running means of the weights by name, the first being `ema`. `history`: a row per tick.
    `losses` and `gradient_norms`: of the updates since the last row, as far as they have been looked at.
    """

    images: int
    denoiser: Denoiser
    averages: dict[str, Denoiser]
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)

    @property
    def ema(self) -> Denoiser:
        """The mean that is validated and exported."""
        return next(iter(self.averages.values()))

    @classmethod
    def fresh(cls, denoiser: Denoiser, averages: Iterable[str] = ("halflife",)) -> "State":
        """At image 0."""
        means = {name: deepcopy(denoiser).requires_grad_(False).eval() for name in averages}
        return cls(0, denoiser, means, torch.optim.Adam(denoiser.parameters(), fused=True))


@dataclass(frozen=True)
class Update:
    """Figures of an update, on the device: mean loss over all ranks, and norm of the gradient before it is shortened."""

    loss: Tensor
    gradient_norm: Tensor


def accumulate(
    passes: Sequence[Tensor], first: int, share: Share, schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor], draw: type[Draws] = Draws,
) -> Tensor:  # fmt: skip
    """Gradients of the batch's mean loss from this rank's passes; returns that of the mean, over all ranks, on the device.

    Tiles go to the device as they are stored; cropping first leaves less to `decode`.

    Args:
        first: number in the run of the first image of the first pass.
        draw: where the randomness of a pass is from: `Draws`, or `PassDraws`, which a fast GPU has not to wait for.
    """
    total = torch.zeros(2, device=device)
    for number, tiles in enumerate(passes):
        draws = draw(schedule.seed, range(first, first + len(tiles)), device)
        first += len(tiles)
        cropped = augment(tiles.to(device, non_blocking=True), schedule.crop, draws)
        x0 = scaling.to_network(decode(cropped))
        noisy = corruption(x0, draws)
        with share.accumulating(more=number + 1 < len(passes)):
            with network_precision(schedule.precision, device):
                losses = share.pass_loss(x0, noisy.x, noisy.sigma, noisy.weight) / len(passes)
            losses.sum().backward()
        total += losses.detach()
    return share.mean(total)[0]


def shorten(denoiser: Denoiser, most: float | None) -> Tensor:
    """Shorten the gradient of the mean, and that of its spread, to `most` each; returns the norm of the first that there is before."""
    spread = spread_of(denoiser)
    own = set() if spread is None else set(spread.parameters())
    moving = [parameter for parameter in denoiser.parameters() if parameter.grad is not None]
    norms = []
    for weights in ([one for one in moving if one not in own], [one for one in moving if one in own]):
        if weights:
            norms.append(torch.nn.utils.get_total_norm([one.grad for one in weights if one.grad is not None]))
            if most is not None:
                torch.nn.utils.clip_grads_with_norm_(weights, most, norms[-1])
    return norms[0]


def train_step(
    state: State, passes: Sequence[Tensor], schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor], share: Share | None = None, draw: type[Draws] = Draws,
) -> Update:  # fmt: skip
    """One update of the weights and their running means from the tiles of one batch, cut into passes.

    Args:
        passes: the tiles of this rank's `share` (None: there is one rank, it has all). draw: see `accumulate`.
    """
    share = share or Share(PassLoss(state.denoiser))
    first = state.images + share.part(schedule.batch_size).start
    total = accumulate(passes, first, share, schedule, scaling, corruption, device, decode, draw)
    norm = shorten(state.denoiser, schedule.max_gradient)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.images)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.images += schedule.batch_size
    follow(state.averages, state.denoiser, schedule.ema_keeps(state.images))
    return Update(total, norm)


History = Sequence[Mapping[str, float]]
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
