import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from kedro.io import DatasetError, Version
from matplotlib.figure import Figure

from lowlight_kedro.datasets import atomic
from lowlight_kedro.datasets.atomic import (
    AtomicCSVDataset,
    AtomicJSONDataset,
    AtomicTextDataset,
    TableDataset,
    WithdrawableJSONDataset,
    atomic_path,
)
from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.datasets.figures import AtomicFigureDataset
from lowlight_kedro.datasets.tracking import TrackedCSVDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_on_a_full_disk():
        with atomic_path(target) as path:
            path.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(DatasetError, match=r"cannot write .*a\.txt: No space left on device; what was there before is unchanged"):
        write_on_a_full_disk()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path):
    dataset = AtomicJSONDataset(filepath=str(tmp_path / "sub/a.json"))
    dataset.save({"a": 1})
    with pytest.raises(DatasetError):
        dataset.save({"a": object()})
    assert dataset.load() == {"a": 1}
    assert os.listdir(tmp_path / "sub") == ["a.json"]


def test_tables_and_figures_round_trip(tmp_path):
    table = AtomicCSVDataset(filepath=str(tmp_path / "a.csv"), save_args={"index": False})
    table.save(pd.DataFrame({"a": [1, 2]}))
    assert table.load()["a"].tolist() == [1, 2]
    figure = AtomicFigureDataset(filepath=str(tmp_path / "a.png"), save_args={"format": "png"})
    figure.save(Figure(figsize=(3, 2), dpi=50))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert figure.load().size == (150, 100)


def test_parquet_stands_beside_the_table_with_its_types(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install lowlight-kedro[parquet]")
    table = pd.DataFrame({"scene": ["00001", "00002"], "value": [0.1, None]}, index=[3, 5])
    TableDataset(filepath=str(tmp_path / "a.csv"), parquet=True).save(table)
    TableDataset(filepath=str(tmp_path / "b.csv"), parquet=True, version=Version(None, "v1")).save(table)
    for path in (tmp_path / "a.parquet", tmp_path / "b.parquet/v1/b.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(path), table.reset_index(drop=True))
    assert TableDataset(filepath=str(tmp_path / "a.csv")).load()["scene"].tolist() == [1, 2]  # what the types are kept for


@pytest.mark.parametrize(
    ("asked", "message"), [(True, "needs pyarrow, .*pip install 'lowlight-kedro.parquet.'"), ("both", "must be true or false")]
)
def test_parquet_that_cannot_be_had_is_said_before_anything_is_written(tmp_path, monkeypatch, asked, message):
    monkeypatch.setattr(atomic, "find_spec", lambda _: None)
    with pytest.raises(DatasetError, match=message):
        TableDataset(filepath=str(tmp_path / "a.csv"), parquet=asked)


PRIOR = Checkpoint({"w": torch.ones(2)}, {"format": 1})
VERSIONED = {
    "table.csv": (AtomicCSVDataset, lambda number: pd.DataFrame({"a": [number]}), lambda table: table["a"][0]),
    "a.json": (AtomicJSONDataset, lambda number: {"a": number}, lambda record: record["a"]),
    "a.txt": (AtomicTextDataset, str, int),
    "a.png": (AtomicFigureDataset, lambda number: Figure(figsize=(number, 1), dpi=10), lambda picture: picture.width // 10),
    "history.csv": (TrackedCSVDataset, lambda number: pd.DataFrame({"kimg": [number]}), lambda table: table["kimg"][0]),
    "prior.safetensors": (CheckpointDataset, lambda number: replace(PRIOR, tensors={"w": torch.tensor([number])}),
                          lambda prior: int(prior.tensors["w"])),
}  # fmt: skip


@pytest.mark.parametrize("name", VERSIONED)
def test_versions_are_kept_the_newest_is_loaded_and_one_that_is_growing_is_written_over(tmp_path, name):
    kind, make, read = VERSIONED[name]

    def dataset(load, save):
        return kind(filepath=str(tmp_path / name), version=Version(load, save))

    assert not dataset(None, "v1").exists()
    for version, number in (("v1", 1), ("v2", 2)):
        growing = dataset(None, version)
        growing.save(make(7))
        growing.save(make(number))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        f"{name}/v1/{name}", f"{name}/v2/{name}"
    ]  # fmt: skip
    assert [read(dataset(load, "v3").load()) for load in (None, "v1")] == [2, 1]
    with pytest.raises(DatasetError, match="must not exist"):
        dataset(None, "v1").save(make(3))


def test_a_file_from_before_the_versions_is_told_and_what_is_withdrawn_has_no_versions(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"a\.json is a file, expected a folder of versions; move it away"):
        AtomicJSONDataset(filepath=str(tmp_path / "a.json"), version=Version(None, "v1")).save({"a": 1})
    with pytest.raises(DatasetError, match="cannot be versioned"):
        WithdrawableJSONDataset(filepath=str(tmp_path / "a.json"), version=Version(None, None))


@pytest.mark.parametrize("kind", [AtomicCSVDataset, AtomicJSONDataset, WithdrawableJSONDataset, AtomicTextDataset, AtomicFigureDataset])
def test_tables_json_text_and_figures_lie_on_any_file_system(kind, tmp_path):
    make, read = next((make, read) for other, make, read in VERSIONED.values() if issubclass(kind, other))
    dataset = kind(filepath=f"memory://{tmp_path.name}/{kind.__name__}")
    dataset.save(make(2))
    dataset.save(make(3))
    assert read(dataset.load()) == 3
    assert dataset.exists()
    assert not list(tmp_path.iterdir())
    if kind is WithdrawableJSONDataset:
        dataset.save({})
        assert not dataset.exists()


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys; from lowlight_kedro.datasets.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -9
    assert target.read_text() == "old"
