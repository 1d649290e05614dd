from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from lowlight_kedro.diffusion.draws import index_batches
from lowlight_kedro.pipelines.training.loading import batch_source, on_device
from lowlight_kedro.pipelines.training.options import LoaderOptions

ALONE = LoaderOptions(workers=0, pin_memory=False, persistent_workers=False, prefetch_factor=2)


class Counted:
    """Tiles whose value is their number; remembers which were read."""

    def __init__(self, count):
        self.tile_ids = np.array([f"tile{number}" for number in range(count)], object)
        self.tiles = pd.DataFrame({"tile_id": self.tile_ids})
        self.read = []

    def __len__(self):
        return len(self.tiles)

    def stored(self, indices):
        self.read += indices
        return torch.tensor(indices, dtype=torch.float32).reshape(-1, 1, 1, 1)


def read(tiles, part=slice(None), dropped=(), loader=ALONE, start=0, stop=24):
    return list(batch_source(tiles, dropped, 8, 0, loader, part=part)(start, stop))


@pytest.mark.parametrize("workers", [0, 1])
def test_ranks_read_their_own_images_and_together_the_batches_of_one(workers):
    loader = LoaderOptions(workers=workers, pin_memory=False, persistent_workers=False, prefetch_factor=2)
    whole, halves = read(Counted(10)), [Counted(10), Counted(10)]
    parts = [read(tiles, slice(4 * rank, 4 * rank + 4), loader=loader) for rank, tiles in enumerate(halves)]
    for (names, batch), (names_a, a), (names_b, b) in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([a, b]), batch)
        assert names == names_a == names_b == [f"tile{int(number)}" for number in batch.flatten()]
    if not workers:
        assert [len(tiles.read) for tiles in halves] == [12, 12]


def test_what_is_read_is_the_order_of_the_run_without_the_dropped():
    batches = read(Counted(10), dropped=["tile3"], start=8, stop=32)
    kept = [number for number in range(10) if number != 3]
    assert [batch.flatten().tolist() for _, batch in batches] == [[kept[i] for i in row] for row in index_batches(9, 0, 8, 8, 32)]
    with pytest.raises(ValueError, match="all 2 clean tiles were dropped"):
        read(Counted(2), dropped=["tile0", "tile1"])


def test_the_order_of_a_long_run_is_drawn_as_it_is_needed():
    batches = batch_source(Counted(10), (), 8, 0, ALONE)(0, 10**15)
    assert isinstance(batches, Iterator)
    assert next(batches)[1].shape == (8, 1, 1, 1)


def test_on_the_cpu_batches_are_handed_on_one_at_a_time():
    asked = []

    def batches():
        for number in range(3):
            asked.append(number)
            yield [str(number)], torch.full((1,), number)

    ready = on_device(batches(), torch.device("cpu"))
    assert next(ready)[0] == ["0"]
    assert asked == [0]
    assert [names for names, _ in ready] == [["1"], ["2"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_batches_come_whole_and_in_order():
    batches = [([str(number)], torch.full((4, 3, 64, 64), number).pin_memory()) for number in range(5)]
    for (names, tiles), (expected_names, expected) in zip(on_device(iter(batches), torch.device("cuda")), batches, strict=True):
        assert names == expected_names
        assert torch.equal(tiles.cpu(), expected)
