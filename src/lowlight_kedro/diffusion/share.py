"""One rank's part of every batch, and how the ranks of a run join their gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_losses


class PassLoss(nn.Module):
    """The mean losses of a pass as a module, because DDP's hooks want a `forward` of everything that gets a gradient."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x0: Tensor, x: Tensor, sigma: Tensor, weight: Tensor | float) -> Tensor:
        """Of the mean and of its spread, (2,); see `denoising_losses`. Their sum is what is learned."""
        return torch.stack([losses.mean() for losses in denoising_losses(self.denoiser, x0, x, sigma, weight)])


@dataclass(frozen=True)
class Share:
    """Rank `rank` of `world` takes its run of images out of every batch; `pass_loss` is a `PassLoss`, or DDP around one."""

    pass_loss: nn.Module
    rank: int = 0
    world: int = 1

    @classmethod
    def joined(cls, denoiser: Denoiser) -> "Share":
        """With the ranks of torch's default process group; they all begin with the weights of rank 0."""
        if dist.get_world_size() == 1:
            return cls(PassLoss(denoiser))
        module = DistributedDataParallel(PassLoss(denoiser), gradient_as_bucket_view=True)
        return cls(module, dist.get_rank(), dist.get_world_size())

    def part(self, batch: int) -> slice:
        """Which of the images of a batch are ours; `batch` is a multiple of `world`."""
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)

    @contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """A pass; while `more` of them follow, gradients stay here: the last one's hooks send the sum."""
        if more and isinstance(self.pass_loss, DistributedDataParallel):
            with self.pass_loss.no_sync():
                yield
        else:
            yield

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks, in place; on a GPU it waits for nothing but the stream."""
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value


def require_whole_passes(batch_size: int, batch_gpu: int, world: int) -> None:
    """Every rank makes the same number of full passes, else their mean is not the batch's.

    Raises:
        ValueError: it does not divide.
    """
    if batch_size % (batch_gpu * world):
        fits = -(-batch_size // (batch_gpu * world)) * batch_gpu * world
        raise ValueError(
            f"batch_size must be a multiple of batch_gpu * ranks, got batch_size={batch_size}, batch_gpu={batch_gpu}, ranks={world} "
            f"(--nproc-per-node * --nnodes of torchrun); set batch_size to {fits}, or a smaller batch_gpu"
        )


def agree(what: str, value: str) -> None:
    """All ranks say the same about `what`, or each of them stops.

    Raises:
        ValueError: they do not; the message counts.
    """
    said: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(said, value)
    if len({*said}) > 1:
        groups = {value: [rank for rank, other in enumerate(said) if other == value] for value in said}
        raise ValueError(f"the ranks differ in {what}: " + "; ".join(f"ranks {ranks}: {value}" for value, ranks in groups.items()))
