"""The newest few snapshots and the best one."""

import os

import pytest
import torch
from kedro.io import DatasetError

from lowlight_kedro.datasets.atomic import OutputError
from lowlight_kedro.datasets.checkpoint import SnapshotsDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.prior import snapshot_name


def snapshot(images, psnr=None, run="a"):
    figures = {} if psnr is None else {"psnr_0.3": psnr}
    return Checkpoint({"w": torch.full((3,), float(images))}, {"data": run, "images": images, "figures": figures, "best_by": "psnr_0.3"})


def save(folder, *snapshots, keep=2):
    for one in snapshots:
        SnapshotsDataset(path=str(folder), keep=keep).save({snapshot_name(one.description["images"]): one})
        tick(folder)


def tick(folder):
    """File systems with coarse clocks give files of one moment the same time: set the clock apart by hand."""
    for path in folder.glob("prior-*"):
        told = path.stat().st_mtime_ns
        os.utime(path, ns=(told - 10**9, told - 10**9))


def counts(folder):
    found = SnapshotsDataset(path=str(folder), keep=2).load()
    return {name: read().description["images"] for name, read in found.items()}


def named(*images, best=None):
    return {snapshot_name(count): count for count in images} | ({} if best is None else {"best": best})


@pytest.mark.parametrize(("keep", "left"), [(0, ()), (1, (96,)), (2, (64, 96)), (7, (32, 64, 96)), (None, (32, 64, 96))])
def test_the_newest_are_kept_and_the_best_though_it_is_old(tmp_path, keep, left):
    save(tmp_path, snapshot(32, 20.0), snapshot(64, 19.0), snapshot(96, 19.5), keep=keep)
    assert counts(tmp_path) == named(*left, best=32)
    assert torch.equal(SnapshotsDataset(path=str(tmp_path), keep=1).load()["best"]().tensors["w"], torch.full((3,), 32.0))


def test_without_figures_there_is_no_best_and_nothing_saved_changes_nothing(tmp_path):
    dataset = SnapshotsDataset(path=str(tmp_path / "new"), keep=2)
    assert dataset.load() == {}
    assert not dataset.exists()
    dataset.save({})
    assert not (tmp_path / "new").exists()
    save(tmp_path, snapshot(32), snapshot(64))
    assert counts(tmp_path) == named(32, 64)
    SnapshotsDataset(path=str(tmp_path), keep=0).save({})
    assert counts(tmp_path) == named(32, 64)


def test_a_run_that_comes_to_a_snapshot_again_ends_with_the_same_folder(tmp_path):
    run = [snapshot(32, 20.0), snapshot(64, 22.0), snapshot(96, 21.0)]
    save(tmp_path / "whole", *run)
    save(tmp_path / "killed", *run[:2], *run[1:])
    assert counts(tmp_path / "killed") == counts(tmp_path / "whole") == named(64, 96, best=64)


def test_a_run_begun_anew_takes_over_and_its_first_snapshots_stay(tmp_path):
    save(tmp_path, snapshot(150, 30.0), snapshot(200, 31.0))
    save(tmp_path, snapshot(50, 10.0))
    assert counts(tmp_path) == named(50, 200, best=50)
    save(tmp_path, snapshot(100, 9.0))
    assert counts(tmp_path) == named(50, 100, best=50)
    save(tmp_path, snapshot(150, 1.0, run="b"))
    assert counts(tmp_path) == named(100, 150, best=150)


def test_other_files_stay_and_a_torn_best_is_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "favourite.safetensors").write_text("mine")
    (tmp_path / "best.safetensors").write_bytes(b"torn")
    save(tmp_path, snapshot(32, 20.0), snapshot(64, 19.0), keep=1)
    assert counts(tmp_path) == named(64, best=32)
    assert {"notes.txt", "favourite.safetensors"} <= set(os.listdir(tmp_path))


def test_a_fault_while_writing_removes_nothing(tmp_path, monkeypatch):
    save(tmp_path, snapshot(32, 20.0), snapshot(64, 19.0))
    with monkeypatch.context() as faulty:
        faulty.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match=r"prior-000000\.096kimg\.safetensors: No space left on device"):
            save(tmp_path, snapshot(96, 30.0))
    assert counts(tmp_path) == named(32, 64, best=32)


@pytest.mark.parametrize("keep", [-1, 1.5, "two", True])
def test_keep_must_be_a_count(tmp_path, keep):
    with pytest.raises(DatasetError, match="keep must be a whole number from 0 on, or null to keep all, got keep="):
        SnapshotsDataset(path=str(tmp_path), keep=keep)
