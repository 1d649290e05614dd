"""A full disk and a folder that cannot be written: a clear error, and what was there before stays whole."""

import multiprocessing
import os
import resource
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from matplotlib.figure import Figure

from lowlight_kedro.datasets.atomic import AtomicCSVDataset, AtomicJSONDataset
from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.figures import AtomicFigureDataset
from lowlight_kedro.datasets.image import ImageDataset
from lowlight_kedro.datasets.tiles import TileDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from tests.conftest import make_frame

ROOM = 512  # bytes that a file may have on the full disk


def picture(seed):
    return np.random.default_rng(seed).random((3, 64, 64), np.float32)


def drawn(seed):
    figure = Figure()
    figure.subplots().plot(picture(seed)[0, 0])
    return figure


WRITERS = {
    "raw.dng": lambda path, seed: write_dng(path, make_frame(np.random.default_rng(seed), shape=(64, 64))),
    "picture.tif": lambda path, seed: ImageDataset(filepath=path).save(picture(seed)),
    "picture.png": lambda path, seed: ImageDataset(filepath=path).save(picture(seed)),
    "tile.pt": lambda path, seed: TileDataset(filepath=path).save(picture(seed)),
    "prior.safetensors": lambda path, seed: CheckpointDataset(filepath=path).save(Checkpoint({"a": torch.from_numpy(picture(seed))}, {})),
    "record.json": lambda path, seed: AtomicJSONDataset(filepath=path).save({"a": [seed] * 1000}),
    "table.csv": lambda path, seed: AtomicCSVDataset(filepath=path).save(pd.DataFrame({"a": [seed] * 1000})),
    "figure.png": lambda path, seed: AtomicFigureDataset(filepath=path, save_args={"format": "png"}).save(drawn(seed)),
}


def _on_a_full_disk(channel, name, path):
    """In a child: every file ends after `ROOM` bytes, as on a disk with no room left."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    try:
        WRITERS[name](path, 1)
        channel.send("nothing was raised")
    except Exception as error:  # noqa: BLE001 - which one is asked
        channel.send(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_the_old_file_stays_whole(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](str(path), 0)
    before = path.read_bytes()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_on_a_full_disk, args=(theirs, name, str(path)))
    child.start()
    child.join(20)
    message = ours.recv() if ours.poll(0) else f"the child ended with {child.exitcode}"
    assert message.startswith(f"OutputError: cannot write {path}: "), message
    assert "File too large" in message or "is the disk full?" in message, message
    assert message.endswith("what was there before is unchanged")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_below_a_file_nothing_can_be_written(name, tmp_path):
    """Any user, the superuser too, meets this one."""
    (tmp_path / "file").write_text("old")
    with pytest.raises(DatasetError, match=f"cannot write .*{name}: (Not a directory|File exists)"):
        WRITERS[name](str(tmp_path / "file" / name), 0)
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_in_a_read_only_folder_the_old_file_stays_whole(name, tmp_path):
    path = tmp_path / "folder" / name
    WRITERS[name](str(path), 0)
    before = path.read_bytes()
    path.parent.chmod(0o555)
    if os.access(path.parent, os.W_OK):
        pytest.skip("this user may write into any folder")
    try:
        with pytest.raises(DatasetError, match=f"cannot write .*{name}: Permission denied"):
            WRITERS[name](str(path), 1)
    finally:
        path.parent.chmod(0o755)
    assert path.read_bytes() == before
