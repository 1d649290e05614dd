"""Training on bad input: one error that says what, what was got and what helps, before or instead of damage.

After each of them the state and the prior of an earlier training are the same bytes, and no temporary file is left.
"""

import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError

from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode, write_stack
from lowlight_kedro.pipelines.training.loading import WorkerError, reading_errors
from lowlight_kedro.pipelines.training.work import require_sizes
from lowlight_kedro.pipelines.validation import ValidationError
from tests.pipelines.conftest import make_project

SIDE = 64


def tiles_folder(project):
    return project.data / "03_primary/tiles"


def first_stack(project):
    return tiles_folder(project) / "train0.npy"


def write_tiles(project, train=4, val=2, side=SIDE):
    """Stacks of two made-up tiles, and their metadata."""
    rng, files = np.random.default_rng(0), []
    for split, count in (("train", train), ("val", val)):
        for first in range(0, count, 2):
            stack, number = f"{split}{first}.npy", min(2, count - first)
            write_stack(tiles_folder(project) / stack, rng.uniform(-0.9, 0.9, (number, 3, side, side)).astype(np.float32))
            tiles = [{"tile_id": f"{split}-{first + i}", "stack": stack, "index": i} for i in range(number)]
            files.append({"split": split, "is_clean": True, "scene_id": f"{split}{first}", "tiles": tiles})
    (project.data / "03_primary/metadata.json").write_text(json.dumps({"files": files}))


def made(folder, **tiles):
    project = make_project(folder)
    (project.data / "03_primary").mkdir(parents=True)
    write_tiles(project, **tiles)
    return project


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _bootstrapped):
    """A validated and trained project; not to be changed."""
    project = made(tmp_path_factory.mktemp("trained"))
    project.run("validation", "training", training={"total_kimg": 0.008})
    return project


@pytest.fixture
def ready(trained, tmp_path):
    """The same, to be damaged; what training left must stay, whole."""
    project = trained.copy(tmp_path / "project")
    kept = [project.data / "06_models" / name for name in ("training_state.safetensors", "prior.safetensors")]
    before = [path.read_bytes() for path in kept]
    yield project
    assert [path.read_bytes() for path in kept] == before
    assert not list(project.data.rglob(".*"))


def again(project, *pipelines, **training):
    """Train from the first image on, whatever is there."""
    project.run(*(pipelines or ("training",)), training={"resume": False} | training)


def says(error, what, got, fix):
    """Every message has the three parts, in any order."""
    for part in (what, got, fix):
        assert re.search(part, str(error.value), re.DOTALL), f"{part!r} is not in: {error.value}"


def empty(project):
    shutil.rmtree(tiles_folder(project))
    tiles_folder(project).mkdir()
    (project.data / "03_primary/metadata.json").write_text('{"files": []}')


def no_metadata(project):
    (project.data / "03_primary/metadata.json").unlink()


def torn_metadata(project):
    (project.data / "03_primary/metadata.json").write_text('{"files": [')


VALIDATION, FIRST = ("validation",), "kedro run --pipelines {}` first"
BASE = FIRST.format("preprocessing")
REFUSED = {  # damage, pipelines, parameters of training, error, what it says
    "no tiles, validated": (empty, VALIDATION, {}, ValidationError, ("split train", "none of the 0 tiles", "run preprocessing again")),
    "no tiles": (empty, (), {}, ValueError, ("no clean tile in split 'train'", "0 tiles there", "run preprocessing again")),
    "no tile folder": (lambda project: shutil.rmtree(tiles_folder(project)), VALIDATION, {}, DatasetError,
                       (r"tile folder .*tiles", "does not exist", "run the preprocessing pipeline")),
    "no metadata": (no_metadata, (), {}, DatasetError, (r"metadata\.json", "there is no", BASE)),
    "torn metadata": (torn_metadata, VALIDATION, {}, DatasetError,
                      (r"metadata\.json", "expected JSON .*char 11", BASE.replace("first", "again"))),
    "missing statistics": (lambda project: (project.data / "05_model_input/statistics.json").unlink(), (), {}, DatasetError,
                           (r"statistics\.json", "there is no", FIRST.format("validation"))),
    "other tiles than validated": (lambda project: write_tiles(project, train=2), (), {}, ValueError,
                                   (r"tiles \(fingerprint \w+\)", r"not those that were validated \(\w+\)", FIRST.format("validation"))),
    "stack cut short": (lambda project: os.truncate(first_stack(project), 999), (), {}, DatasetError,
                        (r"train0\.npy", "not a readable stack", "run preprocessing and validation again")),
    "stack gone": (lambda project: first_stack(project).unlink(), (), {}, DatasetError,
                   (r"train0\.npy", "No such file", "put it back, or run preprocessing and validation again")),
    "crop beyond the tiles": (None, (), {"crop": 96}, ValueError,
                              (r"training\.crop must be at most .* 64", "crop=96", r"set training\.crop=64")),
    "crop not halved": (None, (), {"crop": 30}, ValueError,
                        (r"training\.crop must be a multiple of 4", "got 30", r"set training\.crop=28")),
    "validation crop not halved": (None, (), {"validate": {"crop": 30}}, ValueError,
                                   (r"training\.validate\.crop must be a multiple of 4", "got 30", r"set training\.validate\.crop=28")),
    "batch not divisible": (None, (), {"batch_gpu": 3}, ParameterValidationError,
                            ("batch_size must be a multiple of batch_gpu", "batch_gpu=3", "batch_size=8")),
    "no such GPU": (None, (), {"device": "cuda"}, ValueError, ("device 'cuda'", "torch sees only: cpu", "set device to auto or cpu")),
    "network misspelt": (None, (), {"network": {"name": "pyramid"}}, ParameterValidationError,
                         ("unknown network", "'pyramid'", "choose one of: .*raw_unet")),
    "network option misspelt": (None, (), {"network": {"options": {"pyramid_unet": {"wdiths": [8]}}}}, ParameterValidationError,
                                ("network 'pyramid_unet'", "no option 'wdiths'", "its options: widths")),
    "corruption option misspelt": (None, (), {"corruption": {"options": {"noise_map": {"shoot": 1}}}}, ParameterValidationError,
                                   ("corruption 'noise_map'", "no option 'shoot'", "its options: .*shot")),
    "parameter misspelt": (None, (), {"batchsize": 8}, ParameterValidationError, ("parameter 'training'", "batchsize", "not permitted")),
    "fewer than no workers": (None, (), {"loader": {"workers": -1}}, ParameterValidationError,
                              (r"loader\.workers", "input_value=-1", "greater than or equal to 0")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_a_way_out(ready, case):
    damage, pipelines, training, kind, parts = REFUSED[case]
    if case == "no such GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    if damage:
        damage(ready)
    with pytest.raises(kind) as error:
        again(ready, *pipelines, **training)
    says(error, *parts)


def test_whole_tiles_that_cannot_be_halved_are_refused_and_others_are_not():
    network = torch.nn.Identity()
    require_sizes(network, 67, None, 33)  # names no multiple
    network.multiple = 8
    for tile, crop, validation in ((64, None, 256), (64, 16, 8), (67, 64, 64)):
        require_sizes(network, tile, crop, validation)
    with pytest.raises(ValueError, match=r"training\.crop must be a multiple of 8 .* got 68 \(tiles of 68\); set training\.crop=64"):
        require_sizes(network, 68, None, 64)
    with pytest.raises(ValueError, match=r"training\.validate\.crop must be a multiple of 8 .* got 68"):
        require_sizes(network, 68, 64, 256)  # a validation crop is at most the tile
    with pytest.raises(ValueError, match=r"got 4 \(tiles of 4\); take a network of fewer levels"):
        require_sizes(network, 4, None, 4)


def test_nothing_left_after_dropping_is_an_error(ready):
    for path in tiles_folder(ready).glob("*.npy"):
        write_stack(path, np.full_like(np.load(path), 100))
    with pytest.raises(ValidationError) as error:
        ready.run("validation", validation={"on_content": "drop"})
    says(error, r"on_content=drop", "none of the clean tiles", "run preprocessing again")


def test_one_tile_trains_and_without_validation_tiles_too(tmp_path, caplog):
    project = made(tmp_path, train=1, val=0)
    with caplog.at_level(logging.WARNING):
        project.run("validation", "training")
    assert "split val has no clean tile" in caplog.text
    history = pd.read_csv(project.data / "08_reporting/training_history.csv")
    assert history["kimg"].iloc[-1] == pytest.approx(0.128)
    assert np.isfinite(history["loss"]).all()
    assert not list(project.data.rglob(".*"))


def test_nan_tiles_that_came_after_validation_are_named(ready):
    pixels = decode(np.load(first_stack(ready)))
    pixels[1] = np.nan
    np.save(first_stack(ready), pixels)
    with pytest.raises(ValueError, match=r"(?s)loss is nan .* after \d+ images.*train-1"):
        again(ready, crop=None)


def after_the_first_snapshot(monkeypatch, damage):
    """Damage when the first state of a run is saved; returns the bytes that were saved."""
    saved, save = [], CheckpointDataset.save

    def first(self, data):
        save(self, data)
        if not saved and self._filepath.stem == "training_state":
            saved.append(self._filepath.read_bytes())
            damage()

    monkeypatch.setattr(CheckpointDataset, "save", first)
    return saved


DAMAGES = {
    "cut short": (lambda path: os.truncate(path, 999), "got 999 bytes"),
    "written over": (lambda path: write_stack(path, np.zeros((2, 3, SIDE, SIDE), np.float32)), "written to while it was read"),
    "gone": (os.unlink, "No such file"),
}


@pytest.mark.parametrize(("how", "workers"), [("cut short", 0), ("written over", 0), ("gone", 0), ("cut short", 1)])
def test_a_file_that_changes_in_the_middle_stops_with_the_last_snapshot_whole(tmp_path, trained, monkeypatch, how, workers):
    """A stack is mapped into memory: to read beyond a cut would be the end of the process, without a word."""
    project, (damage, got) = trained.copy(tmp_path), DAMAGES[how]
    saved = after_the_first_snapshot(monkeypatch, lambda: damage(first_stack(project)))
    with pytest.raises(DatasetError) as error:
        again(project, total_kimg=0.256, validate={"tiles": 1, "sigmas": []}, selection={"column": "loss"}, loader={"workers": workers})
    says(error, r"train0\.npy", got, "run preprocessing and validation again.*the same command goes on")
    assert len(str(error.value).splitlines()) == 1
    assert (project.data / "06_models/training_state.safetensors").read_bytes() == saved[0]
    assert not list(project.data.rglob(".*"))


def kill_a_worker(before, deadline):
    while time.monotonic() < deadline:
        time.sleep(0.05)
        for child in set(multiprocessing.active_children()) - before:
            os.kill(child.pid, signal.SIGKILL)
            return


GONE = (r"a process that reads tiles is gone \(", "expected it to live", r"set training\.loader\.workers lower")


def test_a_killed_worker_ends_the_run_and_does_not_hang(ready):
    started, handler = time.monotonic(), signal.getsignal(signal.SIGCHLD)
    killer = threading.Thread(target=kill_a_worker, args=(set(multiprocessing.active_children()), started + 20))
    killer.start()
    with pytest.raises(WorkerError) as error:
        again(
            ready, total_kimg=4, snapshot_ticks=10_000, kimg_per_tick=4, validate={"sigmas": []}, selection={"column": "loss"},
            loader={"workers": 1},
        )  # fmt: skip
    killer.join()
    assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGCHLD) == handler  # torch's would raise the death once more, anywhere
    says(error, *GONE)


DEATHS = [
    RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), ConnectionResetError(104, "reset by peer"),
    ConnectionRefusedError(111, "refused"), EOFError(),
]  # fmt: skip


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: type(death).__name__)
def test_a_workers_death_is_one_sentence_whichever_way_it_shows(death):
    with pytest.raises(WorkerError) as error, reading_errors():
        raise death
    says(error, *GONE)


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match=r"^out of memory$"), reading_errors():
        raise RuntimeError("out of memory")


def test_an_untouched_stack_is_read_again_and_again(trained):
    tiles = EDMPTDataset(tiles_folder(trained), trained.data / "03_primary/metadata.json", image_size=SIDE)
    assert torch.equal(tiles.stored([0, 1]), tiles.stored([0, 1]))


def test_what_differs_from_the_training_at_hand_is_told(ready, caplog):
    ready.run("training", training={"total_kimg": 0.008, "learning_rate": 5e-4})
    assert re.search(r"is finished, so nothing is trained .*learning_rate: 0\.001, now 0\.0005; set training\.resume=false", caplog.text)
    caplog.clear()
    ready.run("training", training={"total_kimg": 0.008})
    assert "differs now" not in caplog.text


def test_what_differs_from_the_parameters_of_the_tiles_is_told_or_refused(ready, caplog):
    path = ready.data / "03_primary/metadata.json"
    metadata, options = json.loads(path.read_text()), ready.parameters()["preprocessing"]
    path.write_text(json.dumps(metadata | {"made_by": {"preprocessing": options}}))
    ready.run("training", training={"total_kimg": 0.008})
    assert "not made with" not in caplog.text
    ready.run("training", training={"total_kimg": 0.008}, preprocessing={"tiles": {"stride": 32}, "demosaicer": {"bayer": "lmmse"}})
    assert "preprocessing.demosaicer.bayer: malvar2004, now lmmse; preprocessing.tiles.stride: 64, now 32" in caplog.text
    path.write_text(json.dumps(metadata | {"tile_size": 128}))
    with pytest.raises(ValueError, match=r"tiles are of 128 x 128 pixels, expected tile_size=64 of globals\.yml; set tile_size to 128"):
        ready.run("training")
