import math
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lowlight_kedro.diffusion.checkpoint import pack, unpack
from lowlight_kedro.diffusion.training import NonFiniteLossError, Update, _Unchecked, train_step
from lowlight_kedro.diffusion.validation import best_row, ticks_without_gain
from tests.diffusion.test_training import CORRUPTION, CPU, SCALING, TILES, fresh, run, same, schedule, states

MANY = TILES.repeat(8, 1, 1, 1)  # 40 tiles: five batches of 8 hold each of them once


class _Reads(TorchDispatchMode):
    """Counts the reads of a single value, each of which would make the processor wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("max_gradient", [None, 0.1])
def test_an_update_reads_nothing_back(max_gradient):
    with _Reads() as reads:
        update = train_step(fresh(), TILES[:4].split(2), schedule(batch_size=4, batch_gpu=2, max_gradient=max_gradient), SCALING,
                            CORRUPTION, CPU, lambda tiles: tiles)  # fmt: skip
        assert reads.count == 0
        assert update.loss.item() > 0
        assert reads.count == 1


def test_losses_become_numbers_at_every_look_and_tick_and_not_between():
    known = []
    run(fresh(), kimg_per_tick=0.04, check_updates=3, on_step=lambda state: known.append(len(state.losses)))
    assert known == [0, 0, 3, 3, 5] * 2


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_the_history_is_the_same_however_often_one_looks_and_wherever_one_stops(stop_after):
    whole = run(fresh(), kimg_per_tick=0.04, check_updates=100)
    stopped = pack(run(fresh(), kimg_per_tick=0.04, check_updates=2, stop_after=stop_after), {})
    assert len(stopped.description["losses"]) == len(stopped.description["gradient_norms"]) == stop_after % 5
    resumed = fresh(seed=5)
    unpack(stopped, resumed, {})
    run(resumed, kimg_per_tick=0.04, check_updates=1)
    assert resumed.history == whole.history
    assert len(whole.history) == 2
    assert same(resumed, whole)


def batch_of(tile, plan):
    """(number of the batch with this tile, names of its tiles), as `states` makes them."""
    from lowlight_kedro.diffusion.draws import index_batches

    batches = list(index_batches(len(MANY), plan.seed, 0, plan.batch_size, 40))
    number = next(number for number, batch in enumerate(batches) if tile in batch)
    return number, [f"tile{i}" for i in batches[number]]


@pytest.mark.parametrize("bad", [0, 7, 21])
def test_a_bad_batch_is_named_though_it_is_noticed_later_and_nothing_spoiled_is_yielded(bad):
    spoiled, plan = MANY.clone(), schedule(total_kimg=0.4, kimg_per_tick=0.024, snapshot_ticks=1, check_updates=100, crop=None)
    spoiled[bad] = math.nan
    number, names = batch_of(bad, plan)
    seen = []

    def validate(state):
        seen.append(state.images)
        assert all(weights.isfinite().all() for weights in state.denoiser.parameters())
        return {}

    def all_sound():
        return all(all(tensor.isfinite().all() for tensor in pack(state, {}).tensors.values())
                   for state in states(fresh(), plan, tiles=spoiled, validate=validate))  # fmt: skip

    with pytest.raises(NonFiniteLossError) as raised:
        assert not all_sound(), "a spoiled state was yielded, or none was noticed"
    assert f"after {(number + 1) * 8} images; tiles of this batch: {', '.join(names)}" in str(raised.value)
    assert seen == [24] * (number >= 3)


def test_a_stop_looks_at_the_last_losses_before_it_yields():
    with pytest.raises(NonFiniteLossError):
        run(fresh(), tiles=MANY * math.nan, check_updates=100, kimg_per_tick=1, total_kimg=2, stop_after=1)


def test_an_infinite_gradient_of_a_finite_loss_stops_too():
    unchecked, one = _Unchecked(), torch.tensor(1.0)
    unchecked.updates += [(8, ["a"], Update(one, one)), (16, ["b"], Update(one, one * math.inf)), (24, ["c"], Update(one * math.nan, one))]
    with pytest.raises(NonFiniteLossError, match=r"norm of its gradient inf after 16 images; tiles of this batch: b;"):
        unchecked.settle(fresh())


@pytest.mark.parametrize("max_gradient", [None, 1e-3])
def test_the_history_holds_the_norm_of_the_gradient_before_it_is_shortened(max_gradient):
    state = run(fresh(), total_kimg=0.008, kimg_per_tick=0.008, max_gradient=max_gradient)
    moments = [state.optimizer.state[p]["exp_avg"].flatten() / (1 - 0.9) for p in state.denoiser.parameters()]
    norm = float(torch.cat(moments).norm())
    if max_gradient is not None:
        assert norm == pytest.approx(max_gradient, rel=1e-3)
        norm = run(fresh(), total_kimg=0.008, kimg_per_tick=0.008).history[0]["gradient_norm"]
    assert state.history[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_rows_tell_which_of_them_were_saved():
    saved = []
    for state in states(fresh(), kimg_per_tick=0.016, snapshot_ticks=2, total_kimg=0.08):
        saved.append(state.history[-1]["kimg"])
    assert saved == [0.032, 0.064, 0.08]
    assert [row["kimg"] for row in state.history if row["snapshot"]] == saved
    assert len(state.history) == 5


def rising_until(tick):
    """A validation figure that rises up to a tick and then falls."""
    return lambda state: {"psnr_1": float(min(len(state.history), 2 * tick - len(state.history)))}


def stalled(patience):
    return lambda history: ticks_without_gain(history, "psnr_1", 0.0) >= patience


def test_a_run_ends_early_as_a_complete_one_and_stays_so():
    early = partial(run, validate=rising_until(3), enough=stalled(2), kimg_per_tick=0.008, snapshot_ticks=100)
    state = early(fresh(), total_kimg=0.16)
    assert state.images == (3 + 2 + 1) * 8
    assert state.history[-1]["snapshot"]
    assert best_row(state.history, "psnr_1") == 3
    resumed = fresh(seed=4)
    unpack(pack(early(fresh(), total_kimg=0.16, stop_after=3), {}), resumed, {})
    assert same(early(resumed, total_kimg=0.16), state)
    assert resumed.history == state.history
    again = list(states(resumed, enough=stalled(2), total_kimg=0.16))
    assert [now.images for now in again] == [state.images]


def test_the_rate_is_constant_then_falls_with_the_root_of_the_images():
    plan = schedule(total_kimg=100, ramp_kimg=0, cooldown=0, decay_kimg=4, learning_rate=1.0)
    assert plan.rate_at(0) == plan.rate_at(4000) == 1
    assert plan.rate_at(16_000) == pytest.approx(0.5)
    assert plan.rate_at(36_000) == pytest.approx(1 / 3)
    cooled = schedule(total_kimg=100, ramp_kimg=0, cooldown=0.5, decay_kimg=4, learning_rate=1.0)
    assert cooled.rate_at(64_000) == pytest.approx(plan.rate_at(64_000) * 0.36 / 0.5)
