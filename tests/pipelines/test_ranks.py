"""Several ranks in one run. Starting processes is slow, so each of the two launches below answers several questions."""

import signal
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest, pack
from lowlight_kedro.diffusion.share import agree
from lowlight_kedro.diffusion.training import train_step
from lowlight_kedro.pipelines.training import nodes
from lowlight_kedro.pipelines.training.launch import Crew, RankError, _tell, choose_crew, launched
from lowlight_kedro.pipelines.training.rank import Seat
from tests.diffusion.test_step import NOISE_MAP, PLAN, SCALING, TILES, fresh

CPU = torch.device("cpu")


def three_updates(seat):
    """Of 8 images each, in passes of 2: four of them alone, two each with two ranks."""
    state = fresh()
    if seat.rank:
        torch.nn.init.zeros_(state.denoiser.network.last.weight)  # all begin with the weights of rank 0 nevertheless
    share = seat.share(state.denoiser)
    for _ in range(3):
        mine = TILES[share.part(8)]
        loss = train_step(state, mine.split(2), PLAN, SCALING, NOISE_MAP, CPU, lambda tiles: tiles, share).loss
    return state, float(loss)


def work(given, seat):
    """Train and agree; go on until asked to stop, and agree on the update; then rank 1 raises while rank 0 waits for it."""
    state, loss = three_updates(seat)
    agree("the trained state", digest(pack(state, {"loss": loss})))
    yield pack(state, {"loss": loss, "given": digest(given)})
    updates = 0
    while not seat.should_stop():
        updates += 1
        time.sleep(0.03 * seat.rank)  # so they are asked at different times
    agree("the number of updates", str(updates))
    yield Checkpoint({}, {"updates": updates})
    if seat.rank == 1:
        raise ZeroDivisionError("the tile of rank 1 is bad")
    dist.barrier()
    yield Checkpoint({}, {"updates": "never"})


def test_two_ranks_train_like_one_stop_together_and_a_broken_one_ends_the_run_with_its_traceback():
    given, states = Checkpoint({"weights": torch.arange(3.0)}, {"kind": "earlier"}), []
    ranks = launched(work, (given,), Crew(2), device=CPU, stopping=lambda: bool(states))
    with pytest.raises(RankError, match=r"(?s)rank 1 of 2:\nTraceback.*in work.*ZeroDivisionError: the tile of rank 1 is bad"):
        states.extend(ranks)
    trained, stopped = states
    one, loss = three_updates(Seat(CPU, lambda: False))
    assert trained.description["given"] == digest(given)
    assert trained.description["loss"] == pytest.approx(loss, rel=1e-5)
    assert stopped.description["updates"] >= 1
    start = fresh().denoiser.network.state_dict()
    for name, expected in pack(one, {}).tensors.items():
        torch.testing.assert_close(trained.tensors[name], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(trained.tensors["weights.last.weight"], start["last.weight"], atol=1e-4)


def test_kedro_run_with_two_ranks_ends_as_with_one(project, monkeypatch):
    crews = []
    monkeypatch.setattr(nodes, "launched", lambda *given, **named: crews.append(given[2]) or launched(*given, **named))
    one = project.catalog().load("training_state")
    project.run("training", training={"devices": 2, "batch_gpu": 2, "resume": False})
    two = project.catalog().load("training_state")
    assert crews == [Crew(2)]
    assert two.description.keys() == one.description.keys()
    assert two.description["images"] == one.description["images"]
    assert [row["kimg"] for row in two.description["history"]] == [row["kimg"] for row in one.description["history"]]
    for ours, theirs in zip(two.description["history"], one.description["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for name, expected in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], expected, rtol=1e-3, atol=1e-4)
    assert project.catalog().load("prior").tensors.keys() == {n.removeprefix("ema.") for n in one.tensors if n.startswith("ema.")}


def test_a_rank_that_was_killed_is_named_before_those_that_missed_it(tmp_path):
    for rank in range(3):
        (tmp_path / f"pid-{rank}").write_text(f"10{rank}")
    (tmp_path / "error-2").write_text("RuntimeError: Connection closed by peer")
    (tmp_path / "done-0").write_text("")
    error = ChildFailedError("run_rank", {1: ProcessFailure(local_rank=1, pid=101, exitcode=-signal.SIGKILL, error_file="none")})
    told = _tell(tmp_path, 3, error)
    assert told.index("rank 1 of 3 (pid 101) was killed") < told.index("rank 2 of 3:\nRuntimeError: Connection closed")
    assert "SIGKILL" in told
    assert "rank 0" not in told


def test_the_number_of_a_node_comes_from_the_environment(monkeypatch):
    for name in ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    assert choose_crew(1, 1, None, CPU) == Crew(1)
    assert choose_crew("auto", 1, None, CPU) == Crew(1)
    with pytest.raises(ValueError, match=r"training\.nodes=2 needs training\.rendezvous=host:port.* got None"):
        choose_crew(1, 2, None, CPU)
    with pytest.raises(ValueError, match=r"needs the number of this node, 0 to 1, in one of NODE_RANK.* got None"):
        choose_crew(1, 2, "host:29500", CPU)
    monkeypatch.setenv("SLURM_NODEID", "1")
    assert choose_crew(3, 2, "host:29500", CPU) == Crew(3, 2, "host:29500", 1)
    assert choose_crew(3, 2, "host:29500", CPU).world == 6
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(ValueError, match="got 2"):
        choose_crew(1, 2, "host:29500", CPU)


def test_more_devices_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_crew("auto", 1, None, torch.device("cuda")) == Crew(2)
    assert choose_crew("auto", 1, None, torch.device("cuda:1")) == Crew(1)
    assert choose_crew(2, 1, None, torch.device("cuda")) == Crew(2)
    with pytest.raises(ValueError, match=r"training\.devices=3 was asked for, but torch sees 2 GPUs"):
        choose_crew(3, 1, None, torch.device("cuda"))
    with pytest.raises(ValueError, match="names one device"):
        choose_crew(2, 1, None, torch.device("cuda:1"))
