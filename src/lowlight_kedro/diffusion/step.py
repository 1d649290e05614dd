"""One update of a training run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lowlight_kedro.diffusion.compute import network_precision
from lowlight_kedro.diffusion.corruption import Corruption
from lowlight_kedro.diffusion.denoiser import denoising_loss
from lowlight_kedro.diffusion.order import augment, generator_for
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.diffusion.state import State


def train_step(
    state: State, passes: Sequence[Tensor], schedule: Schedule, scaling: Scaling, corruption: Corruption,
    device: torch.device, decode: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """One update of weights and EMA from the tiles of one batch, cut into passes; returns the mean loss, on the device.

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
    if schedule.max_gradient is not None:
        torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), schedule.max_gradient)
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate_at(state.images)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.images += schedule.batch_size
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.denoiser.parameters()), 1 - schedule.ema_keep(state.images))
    return total
