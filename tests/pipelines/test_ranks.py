"""Several ranks in one run, started as users start them. Starting processes is slow, so one launch answers several questions."""

import time

import kedro.__main__
import pytest
import torch

from lowlight_kedro.diffusion import share
from lowlight_kedro.pipelines.training.ranks import device_of, seated
from tests import forked
from tests.pipelines.test_resume import images_of

UPDATES = {"total_kimg": 0.48, "kimg_per_tick": 0.08, "batch_gpu": 4}  # 60 updates, a snapshot each tenth


def start(project):
    """`torchrun --nproc-per-node 2 -m kedro run`, but that the ranks are forked from it, with all its modules."""
    told = ",".join(f"training.{name}={value}" for name, value in UPDATES.items())
    ranks = ["--nproc-per-node", "2", "--start-method", "fork", "--run-path", kedro.__main__.__file__]
    options = ["--conf-source", str(project.conf), "--env", "test", "--pipelines", "training", "--params", told]
    return forked.start(project.conf.parent / "told", "torch.distributed.run", *ranks, "run", *options)


def test_torchrun_stops_with_a_saved_state_and_one_rank_goes_on_from_there_to_what_it_had_become_alone(project, tmp_path):
    """Two ranks with their shares, stopped after the same update, then one: the same weights as one rank from the start, to rounding."""
    alone = project.copy(tmp_path / "alone")
    for one in (project, alone):
        (one.data / "06_models/training_state.safetensors").unlink()
    two = start(project)
    while images_of(project) < 160 and two.is_alive():
        time.sleep(0.02)
    two.terminate()
    two.join(200)
    told = (project.conf.parent / "told").read_text()
    assert told.count("state saved; the same command goes on from there") == 1, told  # rank 0 logs alone
    assert 160 <= images_of(project) < 480
    for each in (project, alone):
        each.run("training", training=UPDATES)
    ours, theirs = (each.catalog().load("training_state") for each in (project, alone))
    assert ours.description["images"] == theirs.description["images"] == 480
    for row, expected in zip(ours.description["history"], theirs.description["history"], strict=True):
        assert row == pytest.approx(expected, rel=0.02)
    for name, expected in theirs.tensors.items():
        torch.testing.assert_close(ours.tensors[name], expected, rtol=0.02, atol=5e-3)


def test_what_is_no_training_is_refused_in_several_ranks(project, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"torchrun started 2 ranks, and each of them would run .*cut_tiles"):
        project.run()
    with pytest.raises(ValueError, match=r"batch_size must be a multiple .* got batch_size=8, batch_gpu=8, ranks=2 \(--nproc-per-node"):
        project.run("training", training={"batch_gpu": 8, "resume": False})


def test_each_rank_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of("auto", local, 2) for local in (0, 1)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert device_of("cpu", 1, 4) == torch.device("cpu")
    with pytest.raises(ValueError, match=r"started 3 ranks on this machine, but torch sees 2 GPUs; give --nproc-per-node 2"):
        device_of("cuda", 0, 3)
    with pytest.raises(ValueError, match="names one device"):
        device_of("cuda:1", 0, 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with seated("cuda:1", lambda: False) as seat:
        assert (seat.device, seat.world, seat.first) == (torch.device("cuda:1"), 1, True)


def test_ranks_that_disagree_are_counted(monkeypatch):
    monkeypatch.setattr(share.dist, "get_world_size", lambda: 3)

    def gathered(box, told):
        box[:] = ["a", "b", "a"]

    monkeypatch.setattr(share.dist, "all_gather_object", gathered)
    with pytest.raises(ValueError, match=r"the ranks differ in the state: ranks \[0, 2\]: a; ranks \[1\]: b"):
        share.agree("the state", "a")
