"""Tiles to batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, stack
from torch.utils.data import DataLoader, Dataset

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.diffusion.order import index_batches
from lowlight_kedro.pipelines.training.options import LoaderOptions

Batches = Callable[[int, int], Iterator[tuple[list[str], Tensor]]]


class _Named(Dataset[tuple[str, Tensor]]):
    """Some tiles of an `EDMPTDataset`, as (tile_id, image)."""

    def __init__(self, tiles: EDMPTDataset, indices: Sequence[int]) -> None:
        self._tiles, self._indices = tiles, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        number = self._indices[index]
        return self._tiles.tiles[number]["tile_id"], self._tiles[number][0]


def _collate(items: Sequence[tuple[str, Tensor]]) -> tuple[list[str], Tensor]:
    return [name for name, _ in items], stack([image for _, image in items])


def batch_source(tiles: EDMPTDataset, dropped: Sequence[str], batch_size: int, seed: int, loader: LoaderOptions) -> Batches:
    """(first image, last image) -> batches of (names, tiles), without the `dropped` tiles.

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
            kept, batch_sampler=list(index_batches(len(kept), seed, start, batch_size, stop)), collate_fn=_collate,
            num_workers=loader.workers, pin_memory=loader.pin_memory, **(with_workers if loader.workers else {}),
        ))  # fmt: skip

    return batches
