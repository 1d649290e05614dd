"""A folder of tiles as a mapping."""

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from lowlight_kedro.datasets.stacks import STEP, decode
from lowlight_kedro.datasets.tiles import TileFolderDataset


@pytest.fixture
def folder(tmp_path, rng):
    """Two stacks and two single tiles."""
    dataset = TileFolderDataset(filepath=str(tmp_path / "tiles"))
    tiles = rng.uniform(-1, 1, (4, 3, 8, 8)).astype(np.float32)
    dataset.save({"long/a.npy": tiles, "short/a.npy": lambda: tiles[:2]})
    dataset.save({"long/b.pt": tiles[0], "c.pt": tiles[1]})
    return dataset, tiles


def test_what_is_saved_is_loaded_under_the_same_names(folder):
    dataset, tiles = folder
    files = dataset.load()
    assert list(files) == ["c.pt", "long/a.npy", "long/b.pt", "short/a.npy"]
    np.testing.assert_array_equal(files["long/b.pt"](), tiles[0])
    np.testing.assert_allclose(decode(files["long/a.npy"]()), tiles, atol=0.51 * STEP, rtol=0)
    assert len(files["short/a.npy"]()) == 2


def test_listing_opens_nothing(folder):
    dataset, _ = folder
    for name in dataset.load():
        (dataset._filepath / name).write_bytes(b"")
    (dataset._filepath / ".1.torn.npy").write_bytes(b"")
    (dataset._filepath / "metadata.json").write_text("{}")
    assert len(dataset.load()) == 4


def test_a_record_finds_its_file_wherever_the_layouts_put_it(folder, tmp_path):
    dataset, tiles = folder
    files = dataset.load()
    torch.save(torch.zeros(1), tmp_path / "outside.pt")
    found = {
        "stack": files.find({"tile_id": "x", "stack": "long/a.npy", "index": 0}),
        "pt_path": files.find({"tile_id": "x", "pt_path": "long/b.pt"}),
        "moved": files.find({"tile_id": "c", "pt_path": "/elsewhere/c.pt"}),
        "long": files.find({"tile_id": "b"}),
        "absolute": files.find({"tile_id": "x", "pt_path": str(tmp_path / "tiles/c.pt")}),
        "outside": files.find({"tile_id": "x", "pt_path": str(tmp_path / "outside.pt")}),
    }
    assert {key: file.name for key, file in found.items()} == {
        "stack": "long/a.npy", "pt_path": "long/b.pt", "moved": "c.pt", "long": "long/b.pt", "absolute": "c.pt",
        "outside": str(tmp_path / "outside.pt"),
    }  # fmt: skip
    np.testing.assert_array_equal(found["absolute"](), tiles[1])
    assert files.find({"tile_id": "x"}) is None
    assert files.find({"tile_id": "b", "stack": "long/z.npy", "index": 0}) is None  # a stack has no second place


def test_a_stack_with_the_same_tiles_is_left_alone_and_another_is_not(folder):
    dataset, tiles = folder
    path = dataset._filepath / "long/a.npy"
    before = path.stat()
    dataset.save({"long/a.npy": tiles})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    tiles[-1, -1, -1, -1] += 2 * STEP if tiles[-1, -1, -1, -1] < 0 else -2 * STEP
    dataset.save({"long/a.npy": tiles})
    assert path.stat().st_ino != before.st_ino
    path.write_bytes(path.read_bytes()[:-1])
    dataset.save({"long/a.npy": tiles})
    assert len(dataset.load()["long/a.npy"]()) == 4


def test_a_missing_folder_or_another_ending_says_what_to_do(tmp_path):
    dataset = TileFolderDataset(filepath=str(tmp_path / "nothing"))
    with pytest.raises(DatasetError, match=r"tile folder .*nothing does not exist; run the preprocessing pipeline"):
        dataset.load()
    with pytest.raises(DatasetError, match=r"a tile file ends in \.npy or \.pt, got a\.tif"):
        dataset.save({"a.tif": np.zeros((1, 3, 8, 8), np.float32)})
