"""A real `kedro run` of the training, killed and stopped again and again, ends like one that nobody touched."""

import json
import os
import signal
import struct
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from safetensors.torch import load_file

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, NonFiniteStateError
from lowlight_kedro.pipelines.training import nodes
from lowlight_kedro.pipelines.training.nodes import export_prior
from lowlight_kedro.pipelines.training.progress import COSTS
from lowlight_kedro.pipelines.training.ranks import StopRequests
from lowlight_kedro.pipelines.training.work import train_rank
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from tests import forked
from tests.pipelines.conftest import make_project, write_raws
from tests.pipelines.test_progress import options

STATE = "06_models/training_state.safetensors"
SEED = int(os.environ.get("LOWLIGHT_KILL_SEED", "0"))
LONG = {"total_kimg": 0.24, "kimg_per_tick": 0.016}  # 30 updates, a snapshot each second one


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A project of two frames, ready to train on; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("validated"))
    write_raws(project.raw, {"00001": BAYER_RGGB, "20001": BAYER_RGGB})
    project.run("preprocessing", "validation")
    return project


@pytest.fixture
def ready(validated, tmp_path):
    return validated.copy(tmp_path / "ready")


@contextmanager
def one_thread():
    """As in the processes that are started."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def start(project, *parameters):
    """`kedro run` of the training; its outputs go into a file beside the data."""
    told = ",".join([*(f"training.{name}={value}" for name, value in LONG.items()), *parameters])
    options = ["--conf-source", str(project.conf), "--env", "test", "--pipelines", "training", "--params", told]
    return forked.start(project.conf.parent / "told", "kedro", "run", *options)


def images_of(project):
    """The count in the header of the state on disk; 0 where there is none."""
    try:
        with (project.data / STATE).open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    except FileNotFoundError:
        return 0
    return json.loads(header["__metadata__"]["lowlight_kedro"])["images"]


def signal_at(project, process, images, number, delay=0.0):
    """Send a signal to the whole session once the state on disk has so many images; returns what was written to the terminal."""
    deadline = time.monotonic() + 200
    while process.is_alive() and images_of(project) < images and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    if process.is_alive():
        os.killpg(process.pid, number)
    process.join(200)
    return (project.conf.parent / "told").read_text()


def outcome(project):
    """Everything that a training leaves, but the picture of the curves."""
    files = {str(path.relative_to(project.data)): path.read_bytes() for path in (project.data / "06_models").rglob("*") if path.is_file()}
    history = pd.read_csv(project.data / "08_reporting/training_history.csv").drop(columns=COSTS)
    return files | {"history": history.to_csv().encode()}


def test_a_run_killed_and_stopped_at_any_time_ends_bit_for_bit_like_one_that_was_not(ready, tmp_path):
    rng = np.random.default_rng(SEED)
    whole = ready.copy(tmp_path / "whole")
    with one_thread():
        whole.run("training", training=LONG)

    at, delay = int(rng.integers(16, 48)), float(rng.uniform(0, 0.1))
    print(f"seed {SEED}: SIGKILL {delay:.3f} s after {at} images")
    process = start(ready)
    signal_at(ready, process, at, signal.SIGKILL, delay)
    assert process.exitcode == -signal.SIGKILL
    first = images_of(ready)
    assert first >= at

    number = signal.Signals(int(rng.choice([signal.SIGTERM, signal.SIGINT])))
    at = first + int(rng.integers(16, 64))
    print(f"seed {SEED}: {number.name} after {at} images")
    process = start(ready, "training.loader.workers=1")
    told = signal_at(ready, process, at, number)
    stopped = images_of(ready)
    assert process.exitcode == 128 + number, told
    assert f"stopped at {stopped / 1000:.3f} kimg, state saved; the same command goes on from there" in told
    assert f"resumed at {first / 1000:.1f} of 0.2 kimg" in told
    assert "Traceback" not in told, told
    assert stopped >= at

    with one_thread():
        ready.run("training", training=LONG)
    one, other = outcome(ready), outcome(whole)
    tensors, wanted = load_file(ready.data / STATE), load_file(whole.data / STATE)
    assert {name.split(".")[0] for name in wanted} == {"weights", "ema", "adam"}
    assert [name for name in wanted if not torch.equal(tensors[name], wanted[name])] == []
    assert images_of(ready) == 240
    assert len([name for name in other if "snapshots/prior" in name]) == 3
    assert sorted(one) == sorted(other)
    assert [name for name in other if one[name] != other[name]] == []


def interrupt_after(monkeypatch, number, updates):
    """Send this process a signal after so many updates."""
    from lowlight_kedro.diffusion import training

    step, seen = training.train_step, []

    def signalling(*arguments, **options):
        seen.append(1)
        if len(seen) == updates:
            os.kill(os.getpid(), number)
        return step(*arguments, **options)

    monkeypatch.setattr(training, "train_step", signalling)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_a_state_but_no_snapshot_and_handlers_come_back(ready, monkeypatch, number):
    before = signal.getsignal(number)
    interrupt_after(monkeypatch, number, updates=5)
    with pytest.raises(SystemExit) as raised:
        ready.run("training")
    assert raised.value.code == 128 + number
    assert images_of(ready) == 40  # snapshots are at 32, 64, ...
    assert [path.name for path in (ready.data / "06_models/snapshots").glob("prior*")] == ["prior-000000.032kimg.safetensors"]
    assert not (ready.data / "06_models/prior.safetensors").exists()
    assert signal.getsignal(number) is before


def test_a_run_that_was_stopped_before_its_first_tick_goes_on(ready, monkeypatch):
    with monkeypatch.context() as stopping:
        interrupt_after(stopping, signal.SIGTERM, updates=2)
        with pytest.raises(SystemExit):
            ready.run("training")
    assert images_of(ready) == 16  # ticks are at 32, 64, ...
    ready.run("training")
    assert ready.catalog().load("training_history")["kimg"].tolist() == [0.032, 0.064, 0.096, 0.128]


def test_a_run_that_another_machine_stopped_exports_nothing(ready, monkeypatch):
    """A rank or another node heard the signal, this process did not; it may not call the half of a run a whole one."""
    monkeypatch.setattr(nodes, "stop_requests", lambda: nullcontext(StopRequests()))
    monkeypatch.setattr(nodes, "train_rank", lambda *given, seat: train_rank(*given, seat=replace(seat, should_stop=lambda: True)))
    with pytest.raises(SystemExit) as raised:
        ready.run("training")
    assert raised.value.code == 128 + signal.SIGTERM
    assert images_of(ready) == 8
    assert not (ready.data / "06_models/prior.safetensors").exists()


def test_the_best_snapshot_of_another_run_is_not_exported():
    best = options(export="best")
    state = Checkpoint({}, {"network": "one", "images": 8, "history": []})
    of_this, of_another = (Checkpoint({}, {"network": name, "images": 4, "figures": {}, "best_by": "loss"}) for name in ("one", "two"))
    assert export_prior(state, {"best": lambda: of_this}, best) is of_this
    with pytest.raises(ValueError, match=r"the best snapshot .* is of another run"):
        export_prior(state, {"best": lambda: of_another}, best)


def test_the_best_snapshot_is_exported_where_it_was_asked_for(ready):
    ready.run("training")
    catalog = ready.catalog()
    history, snapshots = catalog.load("training_history"), catalog.load("snapshots")
    best = snapshots["best"]()
    assert best.description["figures"]["psnr_0.3"] == pytest.approx(history["psnr_0.3"].max(), rel=1e-12)
    last = catalog.load("prior")
    assert last.description["images"] == 128
    assert all(torch.equal(t, catalog.load("training_state").tensors[f"ema.{n}"]) for n, t in last.tensors.items())
    ready.run("training", training={"export": "best", "selection": {"column": "loss"}, "resume": False, "learning_rate": 1.0e-9})
    chosen, history = ready.catalog().load("prior"), ready.catalog().load("training_history")
    assert chosen.description["figures"]["loss"] == pytest.approx(history["loss"].min(), rel=1e-12)
    assert chosen.description["best_by"] == "loss"


def test_a_column_that_nobody_measures_stops_before_training(ready):
    with pytest.raises(ParameterValidationError, match=r"selection\.column must be one of loss, psnr_0\.3, .* got 'psnr_1'"):
        ready.run("training", training={"selection": {"column": "psnr_1"}})
    assert images_of(ready) == 0


def test_a_full_disk_at_a_snapshot_keeps_the_state_before_and_the_run_goes_on_later(ready, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith("training_state.safetensors") and images_of(ready) == 64:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as faulty:
        faulty.setattr(os, "replace", full)
        with pytest.raises(DatasetError, match=r"training_state\.safetensors: No space left on device, .* MB were to be written beside"):
            ready.run("training")
    assert images_of(ready) == 64
    ready.run("training")
    assert images_of(ready) == 128


def test_spoilt_weights_never_reach_the_disk(ready, monkeypatch):
    """An infinite gradient of a finite loss: the weights are NaN before any loss is."""
    from lowlight_kedro.diffusion import training

    step = training.train_step

    def spoiling(state, *arguments, **options):
        loss = step(state, *arguments, **options)
        if state.images == 64:
            with torch.no_grad():
                next(state.denoiser.parameters()).view(-1)[0] = torch.nan
        return loss

    monkeypatch.setattr(training, "train_step", spoiling)
    with pytest.raises(NonFiniteStateError, match=r"NaN or infinity in weights\..* after 64 images"):
        ready.run("training")
    assert images_of(ready) == 32
    assert [path.name for path in (ready.data / "06_models/snapshots").glob("prior*")] == ["prior-000000.032kimg.safetensors"]


def test_a_state_that_is_torn_or_of_another_run_is_refused_and_kept(ready):
    ready.run("training")
    path = ready.data / STATE
    whole = path.read_bytes()
    for changes in ({"batch_size": 4}, {"crop": 16}, {"seed": 7}, {"corruption": {"name": "uniform"}}):
        key = next(iter(changes))
        with pytest.raises(CheckpointMismatchError, match=rf"training_state\.safetensors\) is of another run: .*{key}: .*resume=false"):
            ready.run("training", training=changes)
        assert path.read_bytes() == whole
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"training_state\.safetensors: not a safetensors checkpoint .*remove the file"):
        ready.run("training")
    assert path.read_bytes() == whole[: len(whole) // 2]
