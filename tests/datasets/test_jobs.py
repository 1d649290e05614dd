"""Results of jobs: whole, resumable, never done twice, one bad file listed."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lowlight_kedro.datasets.atomic import OutputError
from lowlight_kedro.datasets.jobs import JobsDataset
from lowlight_kedro.jobs import VERSIONS, Job, Jobs, processes, sequential


@dataclass(frozen=True)
class Text:
    path: Path

    def content_hash(self) -> str:
        return self.path.read_text()


def compute(path: Path, log: Path, shared: float) -> dict:
    with log.open("a") as file:
        file.write(path.stem + "\n")
    value = float(path.read_text())
    pixels = np.full((3, 4, 4), value * shared, np.float32)
    return {"tiles": {f"{path.stem}/{i}": pixels + i for i in range(int(value))}, "image": pixels, "record": {"value": value}}


@pytest.fixture
def world(tmp_path):
    for name, value in {"a": "2", "b": "1", "c": "three"}.items():
        (tmp_path / f"{name}.txt").write_text(value)
    return tmp_path


def dataset(folder: Path, **options) -> JobsDataset:
    tile, record = "lowlight_kedro.datasets.tiles.TileDataset", "lowlight_kedro.datasets.atomic.AtomicJSONDataset"
    return JobsDataset(parts={
        "tiles": {"path": str(folder / "tiles"), "dataset": tile, "filename_suffix": ".pt"},
        "image": {"path": str(folder / "image"), "dataset": {"type": tile}, "filename_suffix": ".pt"},
        "record": {"path": str(folder / "record"), "dataset": record, "filename_suffix": ".json"},
    }, many=["tiles"], **options)  # fmt: skip


def jobs(world: Path, names="abc", settings=1.0, **options) -> Jobs:
    return Jobs(
        [
            Job(name, "tiles", partial(compute, world / f"{name}.txt", world / "log"), [Text(world / f"{name}.txt")], settings)
            for name in names
        ],
        shared=settings, **options,
    )  # fmt: skip


def log(world: Path) -> list[str]:
    text = (world / "log").read_text().split() if (world / "log").exists() else []
    (world / "log").unlink(missing_ok=True)
    return text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_results_and_one_bad_file_listed_after_a_retry(world):
    saved = dataset(world / "out")
    saved.save(jobs(world))
    assert log(world) == ["a", "b", "c", "c"]
    loaded = saved.load()
    assert loaded["a"]["image"]()[0, 0, 0] == 2.0
    assert loaded["a"]["record"]()["value"] == 2.0
    assert "could not convert" in loaded["c"]["record"]()["error"]
    assert loaded["c"].keys() == {"record"}
    assert sorted(path.name for path in (world / "out/tiles").rglob("*.pt")) == ["0.pt", "0.pt", "1.pt"]


def test_done_work_is_kept(world):
    saved = dataset(world / "out")
    saved.save(jobs(world, "ab"))
    before = contents(world / "out")
    log(world)
    dataset(world / "out").save(jobs(world, "ab"))
    assert log(world) == []
    assert contents(world / "out") == before


@pytest.mark.parametrize("change", ["content", "settings", "version", "missing part", "torn record", "missing tile"])
def test_what_changed_is_done_again(world, change, monkeypatch):
    saved, settings = dataset(world / "out"), 1.0
    saved.save(jobs(world, "ab"))
    log(world)
    if change == "content":
        (world / "a.txt").write_text("3")
    if change == "settings":
        settings = 2.0
    if change == "version":
        monkeypatch.setitem(VERSIONS, "tiles", 99)
    if change == "missing part":
        (world / "out/image/a.pt").unlink()
    if change == "missing tile":
        (world / "out/tiles/a/1.pt").unlink()
    if change == "torn record":
        (world / "out/record/a.json").write_text('{"key": ')
    saved.save(jobs(world, "ab", settings))
    assert log(world) == (["a", "b"] if change in ("settings", "version") else ["a"])
    assert saved.load()["a"]["image"]()[0, 0, 0] == float((world / "a.txt").read_text()) * settings


def test_a_verified_file_that_is_not_as_it_was_written_is_made_again_and_told(world, caplog):
    saved = dataset(world / "out", verify=["tiles"])
    saved.save(jobs(world, "ab"))
    before, tile = contents(world / "out"), world / "out/tiles/a/1.pt"
    saved.save(jobs(world, "ab"))
    log(world)
    tile.write_bytes(tile.read_bytes()[:-1] + b"!")
    saved.save(jobs(world, "ab"))
    assert log(world) == ["a"]
    assert contents(world / "out") == before
    assert "a/1 was not as it had been written; made again from a" in caplog.text
    dataset(world / "out").save(jobs(world, "ab"))
    assert log(world) == []  # nobody asked to verify


def test_a_failure_is_tried_again_by_the_next_run_and_leaves_earlier_files(world):
    saved = dataset(world / "out")
    saved.save(jobs(world, "a"))
    good, image = (world / "a.txt").read_text(), world / "out/image/a.pt"
    (world / "a.txt").write_text("broken")
    saved.save(jobs(world, "a"))
    assert "error" in saved.load()["a"]["record"]()
    assert image.is_file()
    (world / "a.txt").write_text(good)
    saved.save(jobs(world, "a"))
    assert saved.load()["a"]["record"]()["value"] == 2.0


def test_prune_removes_what_is_no_longer_asked_for_and_nothing_else(world):
    saved = dataset(world / "out", prune=True)
    saved.save(jobs(world, "ab"))
    (world / "out/tiles/mine.pt").write_bytes(b"not ours")
    (world / "a.txt").write_text("1")
    saved.save(jobs(world, "a"))
    assert [str(p.relative_to(world / "out/tiles")) for p in sorted((world / "out/tiles").rglob("*.pt"))] == ["a/0.pt", "mine.pt"]
    assert list(saved.load()) == ["a"]


def test_processes_write_the_same_bytes(world):
    dataset(world / "one").save(jobs(world))
    dataset(world / "two").save(jobs(world, executor=partial(processes, workers=1)))
    assert contents(world / "one") == contents(world / "two")


def test_record_without_its_files_is_never_written(world, monkeypatch):
    """The record is last: what it lists exists."""
    saved = dataset(world / "out")
    saved.save(jobs(world, "ab"))
    for path in (world / "out/record").glob("*.json"):
        for part, names in json.loads(path.read_text())["files"].items():
            assert all((world / "out" / part / f"{name}.pt").is_file() for name in names)


@pytest.mark.parametrize("executor", [sequential, partial(processes, workers=1)], ids=["sequential", "processes"])
def test_where_nothing_can_be_written_the_run_stops_and_what_was_done_stays(world, executor):
    saved = dataset(world / "out")
    saved.save(jobs(world, "b"))
    before = contents(world / "out")
    (world / "out/tiles/a").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match=r"cannot write .*/tiles/a/\d\.pt: File exists; what was there before is unchanged"):
        saved.save(jobs(world, "ab", executor=executor))
    (world / "out/tiles/a").unlink()
    assert contents(world / "out") == before
