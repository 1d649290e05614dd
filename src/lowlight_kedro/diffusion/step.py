"""One update of a training run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.order import Draws, augment
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.share import PassLoss, Share
from lowlight_kedro.diffusion.state import State


def accumulate(
    passes: Sequence[Tensor], first: int, share: Share, schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """Gradients of the batch's mean loss from this rank's passes; returns that loss, over all ranks, on the device.

    Tiles go to the device as they are stored; cropping first leaves less to `decode`.

    Args:
        first: number in the run of the first image of the first pass.
    """
    total = torch.zeros((), device=device)
    for number, tiles in enumerate(passes):
        draws = Draws(schedule.seed, range(first, first + len(tiles)), device)
        first += len(tiles)
        cropped = augment(tiles.to(device, non_blocking=True), schedule.crop, draws)
        x0 = scaling.to_network(decode(cropped))
        noisy = corruption(x0, draws)
        with share.accumulating(more=number + 1 < len(passes)):
            with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bf16"):
                loss = share.pass_loss(x0, noisy.x, noisy.sigma, noisy.weight) / len(passes)
            loss.backward()
        total += loss.detach()
    return share.mean(total)


def train_step(
    state: State, passes: Sequence[Tensor], schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor], share: Share | None = None,
) -> Tensor:  # fmt: skip
    """One update of weights and EMA from the tiles of one batch, cut into passes; returns the mean loss, on the device.

    Args:
        passes: the tiles of this rank's `share` (None: there is one rank, it has all).
    """
    share = share or Share(PassLoss(state.denoiser))
    first = state.images + share.part(schedule.batch_size).start
    total = accumulate(passes, first, share, schedule, scaling, corruption, device, decode)
    if schedule.max_gradient is not None:
        torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), schedule.max_gradient)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.images)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.images += schedule.batch_size
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.denoiser.parameters()), 1 - schedule.ema_keep(state.images))
    return total
