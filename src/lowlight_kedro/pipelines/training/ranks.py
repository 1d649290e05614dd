"""The processes of one training: `torchrun ... -m kedro run --pipelines training` starts a rank for each device, alone it is one rank.

Every rank runs the same command, takes its share of each batch and makes the same updates. Rank 0 alone validates, reports and saves.
Ctrl-C and SIGTERM are questions that all ranks answer after the same update, so that a run ends with a saved state.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lowlight_kedro.device import choose_device
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.share import PassLoss, Share

PATIENCE = timedelta(minutes=30)  # of a rank for the others: validation and snapshots are made by rank 0 alone

T = TypeVar("T")


class StopRequests:
    """Which signal asked to stop, if any."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        """Whether a signal came."""
        return bool(self.number)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as shells count: 130 for SIGINT, 143 for SIGTERM, which another rank may have heard alone."""
        return 128 + (self.number or signal.SIGTERM)

    def ask(self, number: int, frame: Any) -> None:
        """The handler: the first signal is noted, a second one ends the run at once."""
        if self.number:
            signal.default_int_handler(number, frame)
        self.number = number


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Within the block, the first SIGINT or SIGTERM only turns the yielded question to True; a second one kills.

    Outside the main thread Python cannot catch signals, and the answer stays False.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.signal(number, requests.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Seat:
    """Where a rank sits: number `rank` of `world`, `local` of them on this machine."""

    device: torch.device
    should_stop: Callable[[], bool]
    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, denoiser: Denoiser) -> Share:
        """Its part of every batch; gradients are joined with those of the other ranks."""
        return Share.joined(denoiser) if self.world > 1 else Share(PassLoss(denoiser))

    def heard(self, value: T) -> T:
        """What the first rank told, on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def least(self, number: int) -> int:
        """The least of what all ranks tell."""
        numbers = [number] * self.world
        if self.world > 1:
            dist.all_gather_object(numbers, number)
        return min(numbers)


def world_size() -> int:
    """How many ranks `torchrun` started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device_of(wanted: str, local_rank: int, local: int) -> torch.device:
    """The device of a rank among `local` ones on this machine.

    Raises:
        ValueError: `wanted` names one device, or there are more ranks than GPUs.
    """
    device = choose_device(wanted)
    if device.index is not None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"several ranks need training.device cpu, cuda or auto, got {wanted}, which names one device")
    if device.type == "cpu":
        return device
    if local > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise ValueError(f"torchrun started {local} ranks on this machine, but torch sees {there} GPUs; give --nproc-per-node {there}")
    return torch.device("cuda", local_rank)


@contextmanager
def seated(wanted: str, asked: Callable[[], bool]) -> Iterator[Seat]:
    """The seat of this process, in torch's default process group where there are several.

    Args:
        wanted: `training.device`. asked: whether this process was asked to stop.

    Raises:
        ValueError: see `choose_device` and `device_of`.
    """
    world, rank = world_size(), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Seat(choose_device(wanted), asked)
        return
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    device = device_of(wanted, int(os.environ["LOCAL_RANK"]), local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))  # torchrun says 1
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    def should_stop() -> bool:
        flag = torch.tensor(float(asked()))  # on the CPU: no wait for the GPU
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    try:
        yield Seat(device, should_stop, rank, world, local)
        dist.barrier()  # until rank 0 has saved the last state
    finally:
        dist.destroy_process_group()
