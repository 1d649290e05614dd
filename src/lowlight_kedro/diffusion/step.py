"""One update of a training run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.denoiser import denoising_loss
from lowlight_kedro.diffusion.ema import follow
from lowlight_kedro.diffusion.order import augment, generator_for
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.state import State


@dataclass(frozen=True)
class Update:
    """Figures of an update, on the device: mean loss, and norm of the gradient before it is shortened."""

    loss: Tensor
    gradient_norm: Tensor


def train_step(
    state: State, passes: Sequence[Tensor], schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor],
) -> Update:  # fmt: skip
    """One update of the weights and their running means from the tiles of one batch, cut into passes.

    Tiles go to the device as they are stored; cropping first leaves less to `decode`.
    """
    total = torch.zeros((), device=device)
    for number, tiles in enumerate(passes):
        generator = generator_for("train", schedule.seed, state.images + number * schedule.batch_gpu)
        noise_generator = generator_for("noise", schedule.seed, state.images + number * schedule.batch_gpu, device)
        cropped = augment(tiles.to(device, non_blocking=True), schedule.crop, generator)
        x0 = scaling.to_network(decode(cropped))
        noisy = corruption(x0, noise_generator)
        with network_precision(schedule.precision, device):
            loss = denoising_loss(state.denoiser, x0, noisy.x, noisy.sigma, noisy.weight).mean() / len(passes)
        loss.backward()
        total += loss.detach()
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
