"""The standard deviation that a prior learns beside its mean."""

import pytest
import torch

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, pack, unpack
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_losses
from lowlight_kedro.diffusion.networks import built_network
from lowlight_kedro.diffusion.networks.pyramid import Spread, with_spread
from lowlight_kedro.diffusion.prior import assembled, begin_with, build_prior, prior_of, separated
from lowlight_kedro.diffusion.training import State
from lowlight_kedro.pipelines.training.work import learn_only
from lowlight_kedro.restoration import windows
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from tests.diffusion.test_training import run, same

STEPS = 150
SMALL = {"widths": [8], "blocks": 1}
DESCRIPTION = {
    "format": 1, "network": {"name": "raw_unet", "options": {"widths": [8, 8], "blocks": 1}}, "sigma_data": 0.5,
    "scaling": {"mean": -0.7, "scale": 0.8}, "corruption": {"name": "noise_map", "options": {}}, "batch_size": 8,
}  # fmt: skip
WITH = DESCRIPTION | {"network": DESCRIPTION["network"] | {"spread": SMALL}}


def fresh(description=WITH):
    torch.manual_seed(0)
    return State.fresh(Denoiser(built_network(description), 0.5))


def awake(state):
    """An untrained network answers 0 and learns little of it; this one has something to say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in state.denoiser.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=generator)
    return state


class Exact(torch.nn.Module):
    """F of the exact denoiser of independent values N(0, 0.5^2): D = c_skip x."""

    def forward(self, scaled, c_noise):
        return torch.zeros_like(scaled)


def test_it_learns_the_standard_deviation_of_the_posterior():
    """Of independent Gaussian values it is sigma sd / sqrt(sigma^2 + sd^2), or sd where nothing was measured."""
    torch.manual_seed(0)
    denoiser = Denoiser(with_spread(Exact(), SMALL, 0.5), 0.5)
    optimizer = torch.optim.Adam(denoiser.parameters())

    def images(count):
        x0 = 0.5 * torch.randn(count, 3, 12, 12)
        sigma = torch.where(torch.rand_like(x0) < 0.3, SIGMA_UNKNOWN, (torch.randn(count, 1, 1, 1) / 2 - 1).exp())
        return x0, torch.where(sigma < SIGMA_UNKNOWN, x0 + sigma * torch.randn_like(x0), 0.0), sigma

    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / STEPS)
        optimizer.zero_grad()
        denoising_losses(denoiser, *images(8))[1].mean().backward()
        optimizer.step()
    x0, x, sigma = images(64)
    with torch.no_grad():
        told = denoiser.spread(x, sigma, denoiser(x, sigma))
    exact = denoiser.coefficients(sigma.clamp(max=1e6))[1]
    ratio = told / exact
    assert (ratio[sigma < SIGMA_UNKNOWN].median() - 1).abs() < 0.15
    assert (ratio[sigma == SIGMA_UNKNOWN].median() - 1).abs() < 0.1
    assert ((x0 - denoiser(x, sigma)) / told).square().mean().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("max_gradient", [None, 0.01])
def test_the_mean_learns_the_same_with_and_without_it(max_gradient):
    beside, alone = run(awake(fresh()), max_gradient=max_gradient), fresh(DESCRIPTION)
    before = awake(fresh()).denoiser.network.state_dict()
    alone.denoiser.network.load_state_dict({name: tensor for name, tensor in before.items() if not name.startswith("spread.")})
    run(alone, max_gradient=max_gradient)
    own = beside.denoiser.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in alone.denoiser.network.state_dict().items())
    assert not torch.equal(own["spread.unet.last.weight"], before["spread.unet.last.weight"])
    assert [row["loss"] for row in beside.history] == [row["loss"] for row in alone.history]
    assert beside.gradient_norms == alone.gradient_norms


def test_it_alone_is_learned_of_a_prior_without_it_and_goes_on_exactly():
    """The mean stays as it is, bit for bit, in the weights and in their running mean; what has no spread may begin there, but no
    other part may be missing."""
    prior = prior_of(pack(run(fresh(DESCRIPTION)), DESCRIPTION))
    state = fresh()
    begin_with(state, prior)
    learn_only(state, "spread")
    whole = run(state)
    for model in (whole.denoiser, whole.ema):
        assert all(torch.equal(model.network.state_dict()[name], tensor) for name, tensor in prior.tensors.items())

    stopped = fresh()
    begin_with(stopped, prior)
    learn_only(stopped, "spread")
    packed = pack(run(stopped, stop_after=5), WITH)
    again = fresh()
    learn_only(again, "spread")
    unpack(packed, again, WITH)
    assert same(run(again), whole)

    without = fresh(DESCRIPTION)
    begin_with(without, prior_of(packed))
    assert all(torch.equal(without.denoiser.network.state_dict()[name], tensor) for name, tensor in prior.tensors.items())

    torn = Checkpoint({name: tensor for name, tensor in prior.tensors.items() if name != "last.weight"}, prior.description)
    with pytest.raises(CheckpointMismatchError, match=r"last\.weight"):
        begin_with(fresh(), torn)


def test_a_prior_of_networks_put_together_has_none_and_parts_without_it_stay_whole():
    state = awake(fresh())
    packed = prior_of(pack(state, WITH))
    assert {name.split(".")[0] for name in packed.tensors} >= {"spread", "first"}
    built = build_prior(packed, built_network(WITH))
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(built.denoiser.spread(x, 0.1 * x.abs(), x), state.ema.spread(x, 0.1 * x.abs(), x))
    whole = assembled(packed, {"bayer": (packed, (0.05, 0.1))})
    build_prior(whole, built_network(whole.description))
    assert not any("spread" in name for name in whole.tensors)
    assert not any("spread" in name for name in separated(whole, "bayer").tensors)


@pytest.mark.parametrize(("height", "width"), [(192, 168), (150, 133), (3, 5)])
def test_of_frames_it_is_told_in_pieces_without_seams(height, width, monkeypatch):
    torch.manual_seed(0)
    spread = Spread(**SMALL, sigma_data=0.5)
    with torch.no_grad():
        for weights in spread.parameters():
            weights += 0.1 * torch.randn_like(weights)
    x, mean = torch.randn(2, 1, 3, height, width)
    sigma = torch.where(torch.rand_like(x) < 0.5, SIGMA_UNKNOWN, 0.2)
    whole = windows.in_pieces(spread, x, sigma, mean)
    monkeypatch.setattr(windows, "PIECE_PIXELS", 1)
    torch.testing.assert_close(windows.in_pieces(spread, x, sigma, mean), whole)
    if height % 2 == width % 2 == 0:
        torch.testing.assert_close(spread(x, sigma, mean).detach(), whole)
    other = mean.clone()
    other[..., -1, -1] += 1
    assert not torch.equal(windows.in_pieces(spread, x, sigma, other), whole)


def test_what_lies_beyond_its_reach_changes_nothing():
    torch.manual_seed(0)
    spread = Spread([8, 8], 1, 0.5)
    with torch.no_grad():
        for weights in spread.parameters():
            weights += 0.1 * torch.randn_like(weights)
    side = (2 * spread.reach + 8) // 4 * 4
    inputs = [torch.randn(1, 3, side, side).requires_grad_() for _ in range(2)]
    sigma = torch.rand(1, 3, side, side)
    middle = spread(inputs[0], sigma, inputs[1])[0, 0, side // 2, side // 2]
    for gradient in torch.autograd.grad(middle, inputs):
        rows, columns = gradient.abs().sum((0, 1)).nonzero().unbind(1)
        for seen in (rows, columns):
            assert (seen - side // 2).abs().max() <= spread.reach
