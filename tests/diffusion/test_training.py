import math
from copy import deepcopy

import pytest
import torch

from lowlight_kedro.diffusion.checkpoint import CheckpointMismatchError, pack, unpack
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.draws import CORRUPTIONS, index_batches
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.prior import begin_with, build_prior, prior_of
from lowlight_kedro.diffusion.scaling import Scaling, propose
from lowlight_kedro.diffusion.training import NonFiniteLossError, Schedule, State, train
from lowlight_kedro.diffusion.validation import best_row, ticks_without_gain

CPU = torch.device("cpu")
SCALING = Scaling(-0.7, 0.8)
TILES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
CORRUPTION = CORRUPTIONS["uniform"](P_mean=-1.2, P_std=1.2, scaling=SCALING)


def schedule(**changes):
    return Schedule(**({
        "total_kimg": 0.08, "batch_size": 8, "batch_gpu": 4, "learning_rate": 1e-3, "ramp_kimg": 0.02, "cooldown": 0.5,
        "decay_kimg": None, "averages": halflife(kimg=0.5, rampup=0.05), "check_updates": 3,
        "kimg_per_tick": 0.016, "snapshot_ticks": 2, "max_gradient": None, "crop": 8, "precision": "fp32", "seed": 1,
    } | changes))  # fmt: skip


def fresh(seed=0, widths=(8, 8), averages=("halflife",)):
    torch.manual_seed(seed)
    return State.fresh(Denoiser(NETWORKS["raw_unet"](widths=widths, blocks=1), 0.5), averages)


def states(state, plan=None, tiles=TILES, stop_after=None, decode=lambda tiles: tiles, validate=lambda _: {}, on_step=lambda _: None,
           enough=lambda history: False, on_tick=lambda _: None, through=lambda batches: batches, **changes):  # fmt: skip
    """What `train` yields; `through` wraps the source of batches."""
    plan = plan or schedule(**changes)
    steps = []

    def step(now):
        steps.append(now.images)
        on_step(now)

    def batches(start, stop):
        for indices in index_batches(len(tiles), plan.seed, start, plan.batch_size, stop):
            yield [f"tile{i}" for i in indices], tiles[indices]

    return train(
        state, through(batches), plan, decode=decode, scaling=SCALING, corruption=CORRUPTION, device=CPU, validate=validate, on_step=step,
        should_stop=lambda: stop_after is not None and len(steps) >= stop_after, enough=enough, on_tick=on_tick,
    )  # fmt: skip


def run(state, *arguments, **changes):
    return list(states(state, *arguments, **changes))[-1]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(pack(a, {}).tensors.values(), pack(b, {}).tensors.values(), strict=True))


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_a_stopped_and_resumed_run_ends_bit_for_bit_like_one_that_was_not(stop_after):
    whole = run(fresh())
    stopped = deepcopy(pack(run(fresh(), stop_after=stop_after), {"net": "x"}))
    assert stopped.description["images"] == 8 * stop_after
    resumed = fresh(seed=99)
    unpack(stopped, resumed, {"net": "x"})
    assert same(run(resumed), whole)
    assert not same(fresh(seed=99), whole)


def test_a_tiny_network_overfits_one_tile():
    state = run(
        fresh(widths=(24, 24)), tiles=TILES[:1, :, :8, :8], total_kimg=1.6, crop=None, learning_rate=6e-3, ramp_kimg=0.1, kimg_per_tick=0.1
    )
    losses = [row["loss"] for row in state.history]
    assert losses[-1] < 0.5 * losses[0], losses


def test_a_run_may_begin_with_a_trained_prior():
    trained, begun = run(fresh(), stop_after=3), fresh(seed=7)
    begin_with(begun, prior_of(pack(trained, {})))
    for network in (begun.denoiser.network, begun.ema.network):
        for name, weights in network.state_dict().items():
            assert torch.equal(weights, trained.ema.network.state_dict()[name])
    assert begun.images == 0
    with pytest.raises(CheckpointMismatchError):
        begin_with(fresh(widths=(8, 16)), prior_of(pack(trained, {})))


def test_a_large_gradient_is_shortened_and_a_small_one_is_left():
    def first_gradient(**changes):
        state = run(fresh(), stop_after=1, **changes)
        moments = [state.optimizer.state[p]["exp_avg"] for p in state.denoiser.parameters()]
        return torch.cat([moment.flatten() for moment in moments]) / (1 - 0.9)  # Adam's first mean is (1 - beta1) of it

    free = first_gradient()
    norm = float(free.norm())
    torch.testing.assert_close(first_gradient(max_gradient=norm / 10), free / 10, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(first_gradient(max_gradient=norm * 1.01), free)


def test_the_ema_is_the_mean_it_says_it_is():
    plan = schedule(averages=halflife(kimg=0.004, rampup=1e9))  # a batch of 8 is two half-lives
    start = fresh()
    before = start.ema.network.last.weight.clone()  # the only layer that the first update moves: it starts at zero
    state = run(start, plan, stop_after=1)
    after = state.denoiser.network.last.weight.detach()
    assert (after - before).abs().min() > 1e-5
    torch.testing.assert_close(state.ema.network.last.weight, 0.25 * before + 0.75 * after, rtol=1e-5, atol=1e-8)


def test_the_learning_rate_ramps_and_cools():
    plan = schedule(total_kimg=1, ramp_kimg=0.1, cooldown=0.5, learning_rate=1.0)
    assert plan.rate_at(0) == pytest.approx(0.08)
    assert plan.rate_at(400) == 1.0
    assert plan.rate_at(750) == pytest.approx(0.5)
    assert plan.rate_at(1000) == 0


def test_a_non_finite_loss_names_the_tiles():
    with pytest.raises(NonFiniteLossError, match=r"loss is nan .* after 8 images; tiles of this batch: .*tile2"):
        run(fresh(), tiles=torch.where(torch.arange(5).reshape(5, 1, 1, 1) == 2, torch.nan, TILES), crop=None)


def test_training_on_stored_tiles_is_training_on_their_decoded_values():
    stored = (TILES * 100).round()
    kept = run(fresh(), tiles=stored, stop_after=2, decode=lambda tiles: tiles / 100)
    assert same(kept, run(fresh(), tiles=stored / 100, stop_after=2))
    assert not same(kept, run(fresh(), tiles=stored, stop_after=2))


def test_scaled_data_has_standard_deviation_one_half_and_the_map_inverts():
    tiles = torch.rand(1000) * 0.3 - 0.9
    proposal = propose(float(tiles.mean()), float(tiles.std()), [])
    scaling = Scaling(proposal["mean"], proposal["scale"])
    assert float(scaling.to_network(tiles).std()) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(scaling.to_tile(scaling.to_network(tiles)), tiles)
    assert (proposal["P_mean"], proposal["P_std"]) == (-1.2, 1.2)


def test_louder_noise_raises_the_proposed_p_mean_by_its_logarithm():
    quiet, loud = (propose(0.0, 0.5, [level])["P_mean"] for level in (0.1, 0.2))
    assert loud - quiet == pytest.approx(torch.tensor(2.0).log().item())


def test_a_checkpoint_of_another_run_or_network_is_refused():
    checkpoint = pack(run(fresh(), stop_after=1), {"data": "abc"})
    with pytest.raises(CheckpointMismatchError, match=r"data: checkpoint 'abc', now 'xyz'; set training\.resume=false"):
        unpack(checkpoint, fresh(), {"data": "xyz"})
    prior = prior_of(checkpoint)
    with pytest.raises(CheckpointMismatchError, match=r"does not fit the network: .*checkpoint"):
        build_prior(prior, NETWORKS["raw_unet"](widths=[8, 16], blocks=1))


HISTORY = [{"psnr": figure, "loss": -figure} for figure in (1.0, 3.0, 2.0, 3.0, 2.5)]


def test_the_best_row_has_the_highest_figure_or_the_lowest_loss_and_is_the_first_of_equals():
    assert best_row(HISTORY, "psnr") == 1
    assert best_row(HISTORY, "loss") == 1
    assert best_row([{"loss": 2.0}, {"loss": 0.5}, {"loss": 1.0}], "loss") == 1


def test_rows_without_a_figure_are_passed_over():
    rows = [{"loss": 1.0}, {"psnr": math.nan}, {"psnr": -2.0}, {"psnr": math.inf}]
    assert best_row(rows, "psnr") == 2
    assert best_row([], "psnr") is None
    assert best_row(rows, "ssim") is None
    assert ticks_without_gain([{"psnr": 2.0}, {"loss": 1.0}, {"psnr": 1.0}], "psnr", 0) == 1


@pytest.mark.parametrize(("min_delta", "waited"), [(0.0, 3), (1.5, 3), (2.0, 4), (0.4, 3)])
def test_only_a_gain_over_min_delta_ends_the_wait(min_delta, waited):
    assert ticks_without_gain(HISTORY, "psnr", min_delta) == waited


def test_small_gains_add_up_to_one():
    """The bar is the last gain, not the last row: a slow rise is no standstill."""
    rising = [{"psnr": 0.4 * n} for n in range(7)]
    assert [ticks_without_gain(rising[: n + 1], "psnr", 1.0) for n in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_the_wait_never_needs_more_than_the_history():
    """Row by row or all at once."""
    for end in range(1, len(HISTORY)):
        before, now = (ticks_without_gain(HISTORY[:n], "psnr", 0) for n in (end, end + 1))
        assert now in (0, before + 1)
