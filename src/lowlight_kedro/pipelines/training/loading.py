"""Tiles to batches, on the device before they are needed; what goes wrong while tiles are read, said so that it can be acted upon."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from kedro.io import DatasetError
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.diffusion.draws import index_batches
from lowlight_kedro.pipelines.training.options import LoaderOptions

KEPT = "what the last snapshot saved is sound, the same command goes on from there"


class WorkerError(RuntimeError):
    """A process that reads tiles for training died."""


@contextmanager
def reading_errors() -> Iterator[None]:
    """Around the loop: one sentence for a worker's death, whichever way it shows.

    Raises:
        WorkerError: a worker of the DataLoader died. DatasetError: what a worker said of a tile, without the worker's traceback.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter two where it died while it handed over tiles
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            f"a process that reads tiles is gone ({str(error).strip() or type(error).__name__}), expected it to live as long as the run; "
            f"the system kills when memory is short: set training.loader.workers lower (0: no such processes); {KEPT}"
        ) from error
    except DatasetError as error:
        said = str(error).strip().splitlines()[-1].removeprefix("kedro.io.core.DatasetError: ")
        raise DatasetError(f"{said}; {KEPT}") from error


Batch = tuple[list[str], Tensor]
Batches = Callable[[int, int], Iterator[Batch]]
ALL = slice(None)


class _Named(Dataset[Batch]):
    """Some tiles of an `EDMPTDataset`, read a batch at a time: (tile_ids of the batch, `part` of its tiles as they are stored)."""

    def __init__(self, tiles: EDMPTDataset, indices: NDArray[np.intp], part: slice) -> None:
        self._tiles, self._indices, self._part = tiles, indices, part

    def __len__(self) -> int:
        return len(self._indices)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        numbers = self._indices[indices].tolist()
        return self._tiles.tile_ids[numbers].tolist(), self._tiles.stored(numbers[self._part])

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])


class _Order(Sampler[list[int]]):
    """`index_batches`, drawn as it is needed: a long run is no long list."""

    def __init__(self, *arguments: int) -> None:
        self._arguments = arguments

    def __iter__(self) -> Iterator[list[int]]:
        return index_batches(*self._arguments)


def _whole(batch: Any) -> Any:
    """A batch that was read as one needs no collating."""
    return batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches whose copy to a GPU runs while the one before is computed; on the CPU they are handed on.

    Memory: the stored values of two batches.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    names, tiles = next(batches, ([], None))
    ahead = _copied(tiles, copying, device)
    while ahead is not None:
        now = names, ahead
        torch.cuda.current_stream(device).wait_stream(copying)
        ahead.record_stream(torch.cuda.current_stream(device))  # else its memory is handed out while the step reads it
        names, tiles = next(batches, ([], None))
        ahead = _copied(tiles, copying, device)
        yield now


def _copied(tiles: Tensor | None, stream: torch.cuda.Stream, device: torch.device) -> Tensor | None:
    with torch.cuda.stream(stream):
        return None if tiles is None else tiles.to(device, non_blocking=True)


def _started(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """Its batches. A worker's death is told where the next batch is asked for, at most 5 s later.

    torch would also raise it from a signal handler, wherever the run is by then: while a snapshot is saved, or another error handled.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)  # torch sets no handler there
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def batch_source(
    tiles: EDMPTDataset, dropped: Sequence[str], batch_size: int, seed: int, loader: LoaderOptions, *,
    part: slice = ALL, device: torch.device | None = None,
) -> Batches:  # fmt: skip
    """(first image, last image) -> batches of (names, tiles as they are stored), without the `dropped` tiles.

    `stacks.decode` makes float32 of them, best where they are used: 16 bits are half the memory of a worker's
    batch and half the way to a GPU.

    Args:
        part: which images of each batch are read, those of one rank; the names are those of the whole batch.
        device: where the tiles are wanted; see `on_device`.

    Raises:
        ValueError: nothing is left.
    """
    kept = _Named(tiles, np.flatnonzero(~tiles.tiles["tile_id"].isin(dropped)), part)
    if not len(kept):
        raise ValueError(f"all {len(tiles)} clean tiles were dropped by validation; see the validation report")
    with_workers: dict[str, Any] = {"prefetch_factor": loader.prefetch_factor, "persistent_workers": loader.persistent_workers}

    def batches(start: int, stop: int) -> Iterator[Batch]:
        read = DataLoader(
            kept, batch_sampler=_Order(len(kept), seed, start, batch_size, stop), collate_fn=_whole,
            num_workers=loader.workers, pin_memory=loader.pin_memory, **(with_workers if loader.workers else {}),
        )  # fmt: skip
        return on_device(_started(read), device or torch.device("cpu"))

    return batches
