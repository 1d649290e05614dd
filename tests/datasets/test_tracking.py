"""The event folder shows the rows of the table, each once."""

import sys
import types

import pandas as pd
import pytest
from kedro.io import DatasetError

from lowlight_kedro.datasets import tracking
from lowlight_kedro.datasets.atomic import OptionalCSVDataset
from lowlight_kedro.datasets.tracking import TrackedCSVDataset
from lowlight_kedro.pipelines.training.progress import with_costs

TAGS = {"training/loss": "loss", "training/learning_rate": "learning_rate", "psnr/0.3": "psnr_0.3"}


def table(rows, shift=0.0):
    kimg = [0.032 * (k + 1) for k in range(rows)]
    return pd.DataFrame({"kimg": kimg, "loss": [1 / k + shift for k in kimg], "learning_rate": 1e-3, "psnr_0.3": [20.0 + k for k in kimg]})


def expected(rows, shift=0.0):
    shown = table(rows, shift)
    return {tag: [(32 * (k + 1), pytest.approx(value, rel=1e-6)) for k, value in enumerate(shown[column])] for tag, column in TAGS.items()}


class Writer:
    """What `SummaryWriter` writes, readable without TensorBoard; a text line per scalar."""

    made = 0

    def __init__(self, folder, purge_step):
        assert purge_step == 0
        Writer.made += 1
        self.path = f"{folder}/events.out.tfevents.{Writer.made:06d}.stub"
        self.lines = []

    def add_scalar(self, tag, value, step):
        self.lines.append(f"{tag} {step} {value!r}\n")

    def flush(self):
        with open(self.path, "w") as file:
            file.writelines(self.lines)


def read_stub(folder):
    """The last file: each begins by forgetting those before."""
    found = {}
    for tag, step, value in (line.split() for line in max(folder.glob("*.stub")).read_text().splitlines()):
        found.setdefault(tag, []).append((int(step), float(value)))
    return found


def read_real(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(row.step, row.value) for row in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(params=["stub", "real"])
def read(request, monkeypatch, tmp_path):
    if request.param == "real":
        pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install lowlight-kedro[tracking]")
        return read_real
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    (tmp_path / "events").mkdir()
    return read_stub


def dataset(folder):
    return TrackedCSVDataset(filepath=str(folder / "history.csv"), events=str(folder / "events"), save_args={"index": False})


def test_every_row_is_shown_once_through_growing_stopping_and_resuming(tmp_path, read):
    first = dataset(tmp_path)
    for rows in (1, 1, 3):
        first.save(table(rows))
        assert read(tmp_path / "events") == expected(rows)
    resumed = dataset(tmp_path)
    for rows in (3, 4, 6):
        resumed.save(table(rows))
        assert read(tmp_path / "events") == expected(rows)
    pd.testing.assert_frame_equal(resumed.load(), table(6))


def test_a_run_that_starts_afresh_shows_no_row_of_the_one_before(tmp_path, read):
    dataset(tmp_path).save(table(5))
    afresh = dataset(tmp_path)
    afresh.save(table(2, shift=7))
    assert read(tmp_path / "events") == expected(2, shift=7)
    afresh.save(table(3, shift=9))  # another history through the same object
    assert read(tmp_path / "events") == expected(3, shift=9)


def test_an_open_tensorboard_sees_a_resumed_run_without_doubles(tmp_path):
    """Its reader goes on over the old and the new file."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed")
    dataset(tmp_path).save(table(4))
    watching = accumulator.EventAccumulator(str(tmp_path / "events"), size_guidance={"scalars": 0})
    watching.Reload()
    resumed = dataset(tmp_path)
    resumed.save(table(5))
    watching.Reload()
    resumed.save(table(6))
    watching.Reload()
    assert [row.step for row in watching.Scalars("training/loss")] == [32 * (k + 1) for k in range(6)]


def test_missing_numbers_are_no_points(tmp_path, read):
    dataset(tmp_path).save(table(2).assign(**{"psnr_0.3": [None, 21.0]}))
    assert read(tmp_path / "events")["psnr/0.3"] == [(64, 21.0)]


def test_without_a_folder_it_is_the_csv_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    TrackedCSVDataset(filepath=str(tmp_path / "history.csv"), save_args={"index": False}).save(table(2))
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
    with pytest.raises(DatasetError, match=r"events=.*curves.* not installed: `pip install 'lowlight-kedro\[tracking\]'`, or set events"):
        TrackedCSVDataset(filepath=str(tmp_path / "history.csv"), events=str(tmp_path / "curves"))


def test_a_folder_that_cannot_be_made_is_named_and_the_csv_stands(tmp_path, read):
    if read is read_stub:
        pytest.skip("the stub makes no folders")
    (tmp_path / "events").write_text("a file")
    with pytest.raises(DatasetError, match=r"cannot write events to .*events: .*exists; the CSV is written"):
        dataset(tmp_path).save(table(1))
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1


def test_a_table_without_rows_is_written_and_read_and_shows_nothing(tmp_path, read):
    """As a run leaves it that was stopped before its first tick."""
    dataset(tmp_path).save(with_costs([], [], None))
    again = OptionalCSVDataset(filepath=str(tmp_path / "history.csv")).load()
    assert again.empty
    assert read(tmp_path / "events") == {}
    assert with_costs([{"kimg": 0.032}], [], again)["seconds"].isna().all()
