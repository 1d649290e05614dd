import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.draws import Draws
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.share import PassLoss, Share, require_whole_passes
from lowlight_kedro.diffusion.training import Schedule, State, accumulate, train_step
from lowlight_kedro.restoration.corruption import ALL_CORRUPTIONS

CPU, SCALING = torch.device("cpu"), Scaling(-0.7, 0.8)
TILES = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(3)) * 2 - 1
NOISE_MAP = ALL_CORRUPTIONS["noise_map"](
    P_mean=-1.2, P_std=1.2, scaling=SCALING, uniform_fraction=0.4, camera_fraction=0.2, shot=[5e-3, 2e-2], read=[0.02, 0.08],
    balance=[1.0, 2.0], mosaics=["bayer", "xtrans"], unknown_fraction=0.8, unknown_weight=1.0, unknown_floor=0.05,
)  # fmt: skip
PLAN = Schedule(
    total_kimg=1, batch_size=8, batch_gpu=8, learning_rate=1e-3, ramp_kimg=0, cooldown=0,
    averages=halflife(kimg=0.5, rampup=0.05), decay_kimg=None, check_updates=1, kimg_per_tick=1, snapshot_ticks=1, max_gradient=1.0,
    crop=16, precision="fp32", seed=1,
)  # fmt: skip


def fresh():
    torch.manual_seed(0)
    denoiser = Denoiser(NETWORKS["raw_unet"](widths=(8, 8), blocks=1), 0.5)
    for weights in denoiser.parameters():  # the last layer begins at zero: nothing before it would have a gradient
        torch.nn.init.normal_(weights, std=0.2)
    return State.fresh(denoiser)


def seen_and_updated(size):
    """What the network is shown in an update of passes of `size`, and the state after it."""
    state, seen = fresh(), []

    def watched(x0, draws):
        seen.append((x0, NOISE_MAP(x0, draws)))
        return seen[-1][1]

    loss = train_step(state, TILES.split(size), PLAN, SCALING, watched, CPU, lambda tiles: tiles).loss
    whole = [torch.cat(parts) for parts in zip(*((x0, one.x, one.sigma, one.weight) for x0, one in seen), strict=True)]
    return whole, state, loss


def test_passes_of_any_size_see_the_same_images_and_make_the_same_update():
    images, one, loss = seen_and_updated(8)
    for size in (4, 2, 1):
        others, other, other_loss = seen_and_updated(size)
        assert all(torch.equal(a, b) for a, b in zip(images, others, strict=True))
        torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=0)
        for a, b in zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True):
            torch.testing.assert_close(b["exp_avg"], a["exp_avg"], rtol=1e-3, atol=1e-6)
        for a, b in zip(one.ema.parameters(), other.ema.parameters(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


def test_the_first_update_draws_for_the_first_images():
    fields = []

    def watched(x0, draws):
        fields.append(draws.field(x0))
        return NOISE_MAP(x0, draws)

    train_step(fresh(), TILES.split(4), PLAN, SCALING, watched, CPU, lambda tiles: tiles)
    assert torch.equal(torch.cat(fields), Draws(PLAN.seed, range(8)).field(torch.cat(fields)))


def test_the_next_update_sees_other_noise():
    state, seen = fresh(), []
    for _ in range(2):
        train_step(state, [TILES], PLAN, SCALING, lambda x0, draws: seen.append(NOISE_MAP(x0, draws)) or seen[-1], CPU, lambda t: t)
    assert not (seen[0].x.flatten(1)[:, None] == seen[1].x.flatten(1)[None]).all(-1).any()


@pytest.mark.parametrize("world", [2, 4])
def test_the_mean_gradient_over_shares_is_that_of_the_whole_batch(world):
    def gradients(rank, world):
        state = fresh()
        share = Share(PassLoss(state.denoiser), rank, world)
        object.__setattr__(share, "mean", lambda value: value)  # no process group here
        tiles = TILES[share.part(8)]
        accumulate(tiles.split(1), share.part(8).start, share, PLAN, SCALING, NOISE_MAP, CPU, lambda tiles: tiles)
        return torch.cat([weights.grad.flatten() for weights in state.denoiser.parameters()])

    whole = gradients(0, 1)
    torch.testing.assert_close(sum(gradients(rank, world) for rank in range(world)) / world, whole, rtol=1e-3, atol=1e-5)
    assert whole.norm() > 1e-3


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_shares_are_the_batch_in_its_order(world):
    shares = [Share(torch.nn.Identity(), rank, world).part(12) for rank in range(world)]
    assert [image for part in shares for image in range(12)[part]] == list(range(12))
    assert {len(range(12)[part]) for part in shares} == {12 // world}


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    require_whole_passes(64, 8, 4)
    with pytest.raises(ValueError, match=r"got batch_size=64, batch_gpu=8, ranks=3 .*; set batch_size to 72"):
        require_whole_passes(64, 8, 3)
