"""One update of a training run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.ema import follow
from lowlight_kedro.diffusion.order import Draws, augment
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.share import PassLoss, Share
from lowlight_kedro.diffusion.state import State


@dataclass(frozen=True)
class Update:
    """Figures of an update, on the device: mean loss over all ranks, and norm of the gradient before it is shortened."""

    loss: Tensor
    gradient_norm: Tensor


def accumulate(
    passes: Sequence[Tensor], first: int, share: Share, schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor], draw: type[Draws] = Draws,
) -> Tensor:  # fmt: skip
    """Gradients of the batch's mean loss from this rank's passes; returns that loss, over all ranks, on the device.

    Tiles go to the device as they are stored; cropping first leaves less to `decode`.

    Args:
        first: number in the run of the first image of the first pass.
        draw: where the randomness of a pass is from: `Draws`, or `PassDraws`, which a fast GPU has not to wait for.
    """
    total = torch.zeros((), device=device)
    for number, tiles in enumerate(passes):
        draws = draw(schedule.seed, range(first, first + len(tiles)), device)
        first += len(tiles)
        cropped = augment(tiles.to(device, non_blocking=True), schedule.crop, draws)
        x0 = scaling.to_network(decode(cropped))
        noisy = corruption(x0, draws)
        with share.accumulating(more=number + 1 < len(passes)):
            with network_precision(schedule.precision, device):
                loss = share.pass_loss(x0, noisy.x, noisy.sigma, noisy.weight) / len(passes)
            loss.backward()
        total += loss.detach()
    return share.mean(total)


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
    weights = [parameter for parameter in state.denoiser.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in weights if parameter.grad is not None])
    if schedule.max_gradient is not None:
        torch.nn.utils.clip_grads_with_norm_(weights, schedule.max_gradient, norm)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.images)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.images += schedule.batch_size
    follow(state.averages, state.denoiser, schedule.ema_keeps(state.images))
    return Update(total, norm)
