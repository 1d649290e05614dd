"""Every executor gives every item's result once, and survives what items do."""

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from lowlight_kedro.jobs import EXECUTORS, WorkerDiedError, dask, processes, sequential


def square(item: int, shared: int) -> int:
    if item == 3:
        raise ValueError("three")
    return item**2 + shared


def die_on_three(item: int, shared: int) -> int:
    if item == 3:
        os._exit(11)
    return item**2 + shared


@pytest.fixture(scope="module")
def cluster():
    """In this process: workers of their own are those of tests/pipelines/test_at_scale.py."""
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=False) as running:
        yield running.scheduler_address


@pytest.fixture(params=sorted(EXECUTORS))
def executor(request):
    options = {"processes": {"workers": 2}, "dask": {}}.get(request.param, {})
    if request.param == "dask":
        options = {"address": request.getfixturevalue("cluster")}
    return partial(EXECUTORS[request.param], **options)


def test_every_item_once_and_errors_as_results(executor):
    results = dict(executor(square, list(range(12)), 100))
    assert isinstance(results.pop(3), ValueError)
    assert results == {i: i**2 + 100 for i in range(12) if i != 3}


def test_no_items(executor):
    assert list(executor(square, [], 0)) == []


def test_a_dying_worker_takes_nobody_along():
    results = dict(processes(die_on_three, list(range(9)), 100, workers=2))
    assert isinstance(results.pop(3), WorkerDiedError)
    assert results == {i: i**2 + 100 for i in range(9) if i != 3}


def test_sequential_is_lazy():
    """One result at a time, so one result in memory."""
    seen = []
    results = sequential(lambda item, shared: seen.append(item), [1, 2], None)
    next(results)
    assert seen == [1]


def test_dask_wants_an_address():
    with pytest.raises(ValueError, match=r"executor\.options\.dask\.address"):
        next(dask(square, [1], 0))


def test_dask_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="pip install"):
        next(dask(square, [1], 0, address="tcp://127.0.0.1:1"))


def writes_for_ever(folder, shared):
    from lowlight_kedro.datasets.atomic import atomic_path  # here: every worker of this file imports what stands above

    with atomic_path(Path(folder) / "half") as temporary:
        temporary.write_text("half")
        time.sleep(120)


def test_ctrl_c_stops_all_workers_and_leaves_no_temporary_file(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    folders = [str(tmp_path / name) for name in "abc"]

    def interrupt():
        for _ in range(1000):
            if len(list(tmp_path.glob("*/.*half"))) == 2:
                break
            time.sleep(0.05)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(processes(writes_for_ever, folders, None, workers=2))
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 100
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
