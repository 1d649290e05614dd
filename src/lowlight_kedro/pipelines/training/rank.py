"""The life of one rank: a process that `launch` started, its place among the others, and its word to the parent.

Words to the parent are files in a folder that both know: `pid-<rank>`, `state-<number>.safetensors`, `error-<rank>` and
`done-<rank>`; its word to the ranks is the file `stop`. A file is there whole or not at all, whoever is killed when.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.share import PassLoss, Share

PATIENCE = timedelta(minutes=30)  # of a rank for the others: validation and snapshots are made by rank 0 alone
STOP = "stop"

T = TypeVar("T")


@dataclass(frozen=True)
class Seat:
    """Where a rank sits. The first rank alone validates, reports and saves."""

    device: torch.device
    should_stop: Callable[[], bool]
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, denoiser: Denoiser) -> Share:
        """Its part of every batch; gradients are joined with those of the other ranks."""
        return Share.joined(denoiser) if self.world > 1 else Share(PassLoss(denoiser))

    def heard(self, told: T) -> T:
        """What the first rank told, on every rank."""
        box = [told]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def least(self, number: int) -> int:
        """The least of what all ranks tell."""
        told = [number] * self.world
        if self.world > 1:
            dist.all_gather_object(told, number)
        return min(told)


Work = Callable[..., Iterator[Checkpoint]]


@dataclass(frozen=True)
class Filed:
    """A checkpoint that waits in a file, so that ranks map it into memory instead of each being sent a copy."""

    path: str

    @classmethod
    def write(cls, checkpoint: Checkpoint, path: Path) -> "Filed":
        """Into `path`."""
        CheckpointDataset(filepath=str(path)).save(checkpoint)
        return cls(str(path))

    def read(self) -> Checkpoint:
        """From its file."""
        checkpoint = CheckpointDataset(filepath=self.path).load()
        assert checkpoint is not None  # only an optional one may be missing
        return checkpoint


@dataclass(frozen=True)
class Job:
    """What every rank is told. `arguments` of `work` are picklable; the keyword `seat` is added. `logs`: of rank 0, for logging."""

    work: Work
    arguments: tuple[Any, ...]
    folder: Path
    device: str
    threads: int
    parent: int
    logs: dict[str, Any]

    def filed(self) -> "Job":
        """Checkpoints among the arguments go into files."""
        arguments = tuple(
            Filed.write(argument, self.folder / f"argument-{number}.safetensors") if isinstance(argument, Checkpoint) else argument
            for number, argument in enumerate(self.arguments)
        )
        return replace(self, arguments=arguments)


def leave_word(folder: Path, name: str, word: str) -> None:
    """A file in the folder, whole at once."""
    with atomic_path(folder / name) as temporary:
        temporary.write_text(word, encoding="utf-8")


def _end_with(parent: int) -> None:
    """A rank does not outlive its parent, also not while it waits for others outside Python, where no signal handler runs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _listen(folder: Path, parent: int) -> Callable[[], bool]:
    """Whether the parent, or SIGTERM, asks this rank to stop. Ctrl-C is for the parent to hear."""
    asked: list[int] = []
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return lambda: bool(asked) or (folder / STOP).exists()


def _take_seat(job: Job) -> Seat:
    """Join the process group; every rank asks `should_stop` after every update, and all hear the same answer."""
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    asked = _listen(job.folder, job.parent)
    torch.set_num_threads(job.threads)
    device = torch.device(job.device, local) if job.device == "cuda" else torch.device(job.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    def should_stop() -> bool:
        flag = torch.tensor(float(asked()))  # on the CPU: no wait for the GPU
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    return Seat(device, should_stop, rank, dist.get_world_size())


def _hand_over(checkpoint: Checkpoint, folder: Path, number: int) -> None:
    """A file for the parent, once it took the one before: at most one waits, training goes on meanwhile."""
    while (folder / f"state-{number - 1}.safetensors").exists():
        time.sleep(0.05)
    Filed.write(checkpoint, folder / f"state-{number}.safetensors")


def run_rank(job: Job) -> None:
    """The entry of a rank; what rank 0 yields goes to the parent, an exception anywhere ends the run."""
    rank = os.environ["RANK"]
    leave_word(job.folder, f"pid-{rank}", str(os.getpid()))
    try:
        if rank == "0":
            from kedro.framework.project import LOGGING

            LOGGING.configure(job.logs)
        seat = _take_seat(job)
        arguments = [argument.read() if isinstance(argument, Filed) else argument for argument in job.arguments]
        for number, checkpoint in enumerate(job.work(*arguments, seat=seat)):
            if seat.first:
                _hand_over(checkpoint, job.folder, number)
        dist.barrier()  # until rank 0 has made the last state
        dist.destroy_process_group()
        leave_word(job.folder, f"done-{rank}", "")
    except BaseException:
        leave_word(job.folder, f"error-{rank}", traceback.format_exc())
        raise
