import os
import subprocess
import sys

import pandas as pd
import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from lowlight_kedro.datasets.atomic import AtomicCSVDataset, AtomicJSONDataset, atomic_path
from lowlight_kedro.datasets.figures import AtomicFigureDataset


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
    AtomicFigureDataset(filepath=str(tmp_path / "a.png"), save_args={"format": "png"}).save(Figure())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys; from lowlight_kedro.datasets.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -9
    assert target.read_text() == "old"
