"""The largest pass that fits: `batch_gpu: auto`."""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.memory import FP32, count_pass, loss_of_noise, parameter_count


@dataclass(frozen=True)
class PassLimits:
    """Shares of the memory that a pass may take, with weights and optimiser: of what a GPU has left, of all that the machine has.

    `cpu_images`: at most so many images a pass where the network runs on a CPU.
    """

    gpu_share: float
    cpu_share: float
    cpu_images: int


Trial = Callable[[int], int]


def candidates(batch_size: int) -> list[int]:
    """Powers of two that divide `batch_size`, ascending."""
    return [2**k for k in range(batch_size.bit_length()) if batch_size % 2**k == 0]


def largest_pass(sizes: Sequence[int], trial: Trial, available: int) -> int:
    """The largest of ascending `sizes` whose pass takes at most `available` bytes.

    They are tried in order until one does not fit, so nothing far too large is ever started.

    Args:
        trial: images of a pass -> bytes that it took at its peak; may raise torch.OutOfMemoryError.

    Raises:
        ValueError: one image does not fit.
    """
    best = 0
    for images in sizes:
        try:
            needed = trial(images)
        except torch.OutOfMemoryError:
            break
        if needed > available:
            break
        best = images
    if not best:
        raise ValueError(
            f"batch_gpu: auto: not even one image fits in {available / 2**30:.1f} GiB; take a smaller network or crop, "
            "compute.checkpointing=true or compute.precision=bf16"
        )
    return best


def run_pass(denoiser: Denoiser, images: int, channels: int, side: int, precision: str) -> None:
    """Two passes of made-up images, the second on top of the gradients of the first; gradients are dropped after them.

    The state of the global random generators is left as it was. Raises torch.OutOfMemoryError where it does not fit.
    """
    device = next(denoiser.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            for _ in range(2):
                loss_of_noise(denoiser, images, channels, side, device, precision).backward()
        finally:
            denoiser.zero_grad(set_to_none=True)


def gpu_trial(denoiser: Denoiser, channels: int, side: int, precision: str, moments: int) -> Trial:
    """Bytes that the allocator had reserved at the peak of a real pass, and `moments` bytes that Adam has yet to take."""
    device = next(denoiser.parameters()).device

    def trial(images: int) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            run_pass(denoiser, images, channels, side, precision)
            return torch.cuda.max_memory_reserved(device) + moments
        finally:
            gc.collect()
            torch.cuda.empty_cache()

    return trial


def machine_memory() -> int:
    """Bytes of memory that this machine has, in all.

    Raises:
        ValueError: the system does not tell.
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError) as error:
        raise ValueError("batch_gpu: auto: this system does not tell how much memory it has; set batch_gpu to a number") from error


def fitting_pass(
    denoiser: Denoiser, batch_size: int, channels: int, side: int, precision: str, limits: PassLimits, *, has_moments: bool = False
) -> int:
    """`batch_gpu: auto`, for a denoiser on its device, prepared but not compiled, without gradients.

    On a GPU passes are run; elsewhere they are counted, which depends on nothing but machine and options.

    Args:
        has_moments: Adam's moments are in memory already, as in a run that goes on.
    """
    device = next(denoiser.parameters()).device
    if device.type == "cuda":
        moments = 0 if has_moments else 2 * FP32 * parameter_count(denoiser)
        free, _ = torch.cuda.mem_get_info(device)
        ours = free + torch.cuda.memory_reserved(device)
        return largest_pass(candidates(batch_size), gpu_trial(denoiser, channels, side, precision, moments), int(limits.gpu_share * ours))

    def counted(images: int) -> int:
        return count_pass(denoiser, images, side, precision, channels=channels).total()

    sizes = [size for size in candidates(batch_size) if size <= limits.cpu_images]
    return largest_pass(sizes, counted, int(limits.cpu_share * machine_memory()))
