"""A checkpoint file is whole, ours, or refused; a write that fails at any moment leaves the old one."""

import errno
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from kedro.io import DatasetError

from lowlight_kedro.datasets import atomic
from lowlight_kedro.datasets.atomic import OutputError
from lowlight_kedro.datasets.checkpoint import KEY, CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint


def state(value, size=1000):
    return Checkpoint({"a": torch.full((size,), float(value)), "b": torch.arange(7) * value}, {"images": value, "history": [{"kimg": 0.1}]})


@pytest.fixture
def dataset(tmp_path):
    saved = CheckpointDataset(filepath=str(tmp_path / "state.safetensors"))
    saved.save(state(1))
    return saved


def holds(dataset, value):
    loaded, wanted = dataset.load(), state(value)
    return loaded.description == wanted.description and all(torch.equal(loaded.tensors[name], t) for name, t in wanted.tensors.items())


def names(dataset):
    return sorted(os.listdir(dataset._filepath.parent))


def test_it_comes_back_and_knows_its_file(dataset):
    assert holds(dataset, 1)
    assert dataset.load().source == str(dataset._filepath)
    dataset.save(state(2))
    assert holds(dataset, 2)
    assert not holds(dataset, 1)


STAGES = {
    "touch": (atomic.Path, "touch"), "written": (safetensors.torch, "save_file"), "half written": (safetensors.torch, "save_file"),
    "synced": (os, "fsync"), "moved": (os, "replace"),
}  # fmt: skip


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error")])
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_stage_leaves_the_old_state_and_names_file_and_bytes(dataset, monkeypatch, stage, error):
    def fail(*arguments, **options):
        raise error

    def fail_half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    owner, name = STAGES[stage]
    with monkeypatch.context() as faulty:
        faulty.setattr(owner, name, fail_half if stage == "half written" else fail)
        with pytest.raises(OutputError, match=r"cannot write .*state\.safetensors: .*") as raised:
            dataset.save(state(2))
    assert error.strerror in str(raised.value)
    assert "0.004056 MB were to be written beside the old file; what was there before is unchanged" in str(raised.value)
    assert holds(dataset, 1)
    assert names(dataset) == ["state.safetensors"]
    dataset.save(state(3))
    assert holds(dataset, 3)


KILLED = """
import os, signal, sys
import safetensors.torch, torch
from lowlight_kedro.datasets import atomic
from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint
path, stages = sys.argv[1], sys.argv[2:]
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
def after(function):
    def both(*arguments, **options):
        function(*arguments, **options)
        die()
    return both
def half(tensors, path, metadata):
    path.write_bytes(b"half")
    die()
real = safetensors.torch.save_file, os.fsync, os.replace
for stage in stages:
    if os.fork():
        os.wait()
        continue
    safetensors.torch.save_file = {"before": die, "half": half, "written": after(real[0])}.get(stage, real[0])
    atomic.os.fsync = after(real[1]) if stage == "synced" else real[1]
    atomic.os.replace = {"moving": die, "moved": after(real[2])}.get(stage, real[2])
    CheckpointDataset(filepath=path + "/" + stage + "/state.safetensors").save(Checkpoint({"a": torch.full((1000,), 2.0)}, {"images": 2}))
    os._exit(0)
"""


def test_a_kill_at_any_stage_leaves_a_whole_state_and_the_next_save_removes_what_is_left(tmp_path):
    stages = ["before", "half", "written", "synced", "moving", "moved"]
    datasets = {stage: CheckpointDataset(filepath=str(tmp_path / stage / "state.safetensors")) for stage in stages}
    for dataset in datasets.values():
        dataset.save(state(1))
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *stages], check=True, timeout=100)
    for stage, dataset in datasets.items():
        assert dataset.load().description["images"] == (2 if stage == "moved" else 1), stage
        assert len(names(dataset)) == (1 if stage == "moved" else 2), stage
        dataset.save(state(3))
        assert names(dataset) == ["state.safetensors"], stage
        assert holds(dataset, 3)


def test_a_temporary_file_of_a_writer_that_lives_is_left_alone(dataset):
    beside = dataset._filepath.with_name(f".{os.getppid()}.state.safetensors")
    other = dataset._filepath.with_name(".notes.state.safetensors")
    for path in (beside, other):
        path.write_bytes(b"half")
    dataset.save(state(2))
    assert beside.exists()
    assert other.exists()


def test_a_full_disk_leaves_the_old_state(tmp_path):
    """A real one of 100 kB, where this user may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not mount a small disk")
    try:
        dataset = CheckpointDataset(filepath=str(disk / "state.safetensors"))
        dataset.save(state(1, size=10_000))
        with pytest.raises(OutputError, match=r"state\.safetensors: .*[Nn]o space left.* 0\.1201 MB were to be written beside the old"):
            dataset.save(state(2, size=30_000))
        assert names(dataset) == ["state.safetensors"]
        assert torch.equal(dataset.load().tensors["a"], torch.ones(10_000))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def file_of(header, data=b""):
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


OURS = {"__metadata__": {KEY: "{}"}}
BAD = {
    "empty": (b"", "the file is empty; 0 bytes"),
    "text": (b"no checkpoint at all", "20 bytes"),
    "pickle": (pickle.dumps(Hostile()), "not a safetensors checkpoint"),
    "zip": (b"PK\x03\x04" + bytes(100), "not a safetensors checkpoint"),
    "endless header": (struct.pack("<Q", 2**62) + b"{}", "not a safetensors checkpoint"),
    "of others": (file_of({"a": tensor()}, bytes(8)), f"no '{KEY}' in its header"),
    "a shape that lies": (file_of(OURS | {"a": tensor(shape=(3,))}, bytes(8)), "not a safetensors checkpoint"),
    "a shape below 0": (file_of(OURS | {"a": tensor(shape=(-2,))}, bytes(8)), "not a safetensors checkpoint"),
    "a huge shape": (file_of(OURS | {"a": tensor(shape=(2**40, 2**40))}, bytes(8)), "not a safetensors checkpoint"),
    "an unknown type": (file_of(OURS | {"a": tensor(dtype="F33")}, bytes(8)), "not a safetensors checkpoint"),
    "places outside": (file_of(OURS | {"a": tensor(offsets=(8, 16))}, bytes(8)), "not a safetensors checkpoint"),
    "places twice": (file_of(OURS | {"a": tensor(), "b": tensor()}, bytes(8)), "not a safetensors checkpoint"),
    "more than told": (file_of(OURS | {"a": tensor()}, bytes(9)), "not a safetensors checkpoint"),
    "less than told": (file_of(OURS | {"a": tensor()}, bytes(7)), "not a safetensors checkpoint"),
    "no JSON": (file_of({"__metadata__": {KEY: "{"}, "a": tensor()}, bytes(8)), "Expecting property name"),
    "a list": (file_of({"__metadata__": {KEY: "[1, 2]"}, "a": tensor()}, bytes(8)), "its description is '[1, 2]', expected a mapping"),
    "deep": (file_of({"__metadata__": {KEY: "[" * 100_000}, "a": tensor()}, bytes(8)), "not a safetensors checkpoint"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_checkpoint_is_refused_with_file_reason_and_fix(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = BAD[kind]
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as raised:
        CheckpointDataset(filepath=str(path), optional=True).load()
    message = str(raised.value)
    assert message.startswith(f"{path}: not a safetensors checkpoint of lowlight_kedro (")
    assert words in message
    assert "name a prior" in message
    assert os.listdir(tmp_path) == ["state.safetensors"]
    assert path.read_bytes() == content


def test_a_torn_file_is_refused_wherever_it_ends(dataset):
    whole = dataset._filepath.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 4, len(whole) - 1}:
        dataset._filepath.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=f"not a safetensors checkpoint .*{length} bytes"):
            dataset.load()


def test_a_missing_one_says_what_to_run_and_a_folder_is_no_file(tmp_path):
    missing = str(tmp_path / "prior.safetensors")
    with pytest.raises(DatasetError, match=r"there is no checkpoint .*prior\.safetensors; run `kedro run --pipelines training` first"):
        CheckpointDataset(filepath=missing).load()
    assert CheckpointDataset(filepath=missing, optional=True).load() is None
    with pytest.raises(DatasetError, match="not a safetensors checkpoint"):
        CheckpointDataset(filepath=str(tmp_path)).load()


def test_a_checkpoint_may_be_read_by_whom_other_new_files_may(tmp_path):
    (tmp_path / "other").touch()
    CheckpointDataset(filepath=str(tmp_path / "prior.safetensors")).save(Checkpoint({"w": torch.zeros(1)}, {}))
    assert (tmp_path / "prior.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
