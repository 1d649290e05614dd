"""Tiles to batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.diffusion.order import index_batches
from lowlight_kedro.pipelines.training.options import LoaderOptions

Batches = Callable[[int, int], Iterator[tuple[list[str], Tensor]]]


class _Named(Dataset[tuple[list[str], Tensor]]):
    """Some tiles of an `EDMPTDataset`, read a batch at a time: (tile_ids, tiles as they are stored)."""

    def __init__(self, tiles: EDMPTDataset, indices: Sequence[int]) -> None:
        self._tiles, self._indices = tiles, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitems__(self, indices: Sequence[int]) -> tuple[list[str], Tensor]:
        numbers = [self._indices[index] for index in indices]
        return [self._tiles.tiles[number]["tile_id"] for number in numbers], self._tiles.stored(numbers)

    def __getitem__(self, index: int) -> tuple[list[str], Tensor]:
        return self.__getitems__([index])


def _whole(batch: Any) -> Any:
    """A batch that was read as one needs no collating."""
    return batch


def batch_source(tiles: EDMPTDataset, dropped: Sequence[str], batch_size: int, seed: int, loader: LoaderOptions) -> Batches:
    """(first image, last image) -> batches of (names, tiles as they are stored), without the `dropped` tiles.

    `stacks.decode` makes float32 of them, best where they are used: 16 bits are half the memory of a worker's
    batch and half the way to a GPU.

    Raises:
        ValueError: nothing is left.
    """
    leave = set(dropped)
    kept = _Named(tiles, [i for i, tile in enumerate(tiles.tiles) if tile["tile_id"] not in leave])
    if not len(kept):
        raise ValueError(f"all {len(tiles)} clean tiles were dropped by validation; see the validation report")
    with_workers: dict[str, Any] = {"prefetch_factor": loader.prefetch_factor, "persistent_workers": loader.persistent_workers}

    def batches(start: int, stop: int) -> Iterator[tuple[list[str], Tensor]]:
        return iter(DataLoader(
            kept, batch_sampler=list(index_batches(len(kept), seed, start, batch_size, stop)), collate_fn=_whole,
            num_workers=loader.workers, pin_memory=loader.pin_memory, **(with_workers if loader.workers else {}),
        ))  # fmt: skip

    return batches
