"""Preprocessing and inference through every executor: the same bytes, nothing done twice, bad files listed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def cluster():
    """A worker in a process of its own; two of them share their work in tests/test_jobs.py."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=True) as running:
        yield running.scheduler_address


@pytest.fixture(params=["processes", "dask"])
def executor(request):
    if request.param == "processes":
        return {"name": "processes", "options": {"processes": {"workers": 2}}}
    return {"name": "dask", "options": {"dask": {"address": request.getfixturevalue("cluster")}}}


def files(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern)) if path.is_file()}


def test_executors_write_the_same_tiles_and_images(finished, project, executor):
    """Tiles to the byte; images, by processes, to rounding, for a network's sums depend on how many threads share them."""
    tiles = files(finished.data, "03_primary/tiles/**/*")
    images = finished.catalog().load("restored")
    assert tiles
    for part in ("02_intermediate", "03_primary", "07_model_output"):
        shutil.rmtree(project.data / part)
    project.run("preprocessing", executor=executor, preprocessing={"pairing": {"check": False}})  # each stage starts workers of its own
    assert files(project.data, "03_primary/tiles/**/*") == tiles
    if executor["name"] == "dask":
        return  # what a job is to it is the same for both pipelines
    for path in project.raw.rglob("10001_00*"):
        path.unlink()  # one frame, one worker: each imports for seconds
    project.run("inference", executor=executor)
    ((name, parts),) = project.catalog().load("restored").items()
    np.testing.assert_allclose(parts["linear"](), images[name]["linear"](), atol=1e-3)


def test_a_second_run_does_nothing_again(project):
    project.run("preprocessing")  # once here: the raws moved with the project
    written = [path for part in ("03_primary/tiles", "07_model_output/linear") for path in (project.data / part).rglob("*.*")]
    times = {path: path.stat().st_mtime_ns for path in written}
    project.run("preprocessing")
    project.run("inference")
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_bad_raw_is_listed_and_the_others_are_done(project):
    bad = project.raw / "Sony/short/10001_00_0.1s.dng"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size * 2 // 3])
    project.run("inference")
    listed = json.loads((project.data / "07_model_output/unreadable_frames.json").read_text())
    assert [entry["file"] for entry in listed] == [str(bad)]
    assert "error" not in project.catalog().load("restored")["Sony/short/10002_00_0.1s"]["record"]()
