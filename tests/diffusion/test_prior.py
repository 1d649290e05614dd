"""What training must find on data of known law: the shipped file's answer, and the exact denoiser of a Gaussian."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lowlight_kedro
from lowlight_kedro.api import load_prior
from lowlight_kedro.diffusion.denoiser import Denoiser, denoising_loss
from lowlight_kedro.diffusion.draws import CORRUPTIONS, Draws, generator_for
from lowlight_kedro.diffusion.ema import halflife
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.samplers import finish, heun, karras_sigmas
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import Schedule, State, train
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

SD, P_MEAN, P_STD = 0.5, -1.2, 1.2
SCALING = Scaling(0.2, 0.8)
CORRUPTION = CORRUPTIONS["uniform"](P_mean=P_MEAN, P_std=P_STD, scaling=SCALING)
LEVELS = (0.05, 0.2, 0.5, 2.0)


@cache
def gaussian():
    """Data of mean 0, so that flips and quarter turns, with which training augments, do not change its law."""
    whole = Gaussian.smooth((1, 4, 4))
    return replace(whole, mean=torch.zeros_like(whole.mean))


class LinearNetwork(torch.nn.Module):
    """F = sum_k phi_k(c_noise) W_k u: linear in the image, with bumps phi_k over ln(sigma) / 4; the exact F is of this kind."""

    def __init__(self, size, count=10):
        super().__init__()
        self.centres = torch.linspace(-1.5, 0.9, count)
        self.weights = torch.nn.Parameter(torch.zeros(count, size, size))

    def forward(self, scaled, c_noise):
        level = c_noise[:, :1, 0, 0]
        bumps = torch.softmax(-((level - self.centres) ** 2) / (2 * 0.2**2), dim=1)
        return torch.einsum("bk,kij,bj->bi", bumps, self.weights, scaled.flatten(1)).reshape(scaled.shape)


def least_loss(prior):
    """EDM's loss of the exact denoiser: the mean over ln sigma ~ N(P_mean, P_std^2) of lambda(sigma) times the posterior variance.

    A Gaussian of variances v has posterior variances v sigma^2 / (v + sigma^2).
    """
    steps = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    fraction = torch.exp(-steps.square() / 2) / torch.exp(-steps.square() / 2).sum()
    square = torch.exp(2 * (P_MEAN + P_STD * steps))[:, None]
    values = prior.axes[0]
    of_level = ((square + SD**2) / (square * SD**2) * values * square / (values + square)).mean(1)
    return float((fraction * of_level).sum())


@dataclass(frozen=True)
class Exact:
    """The closed-form denoiser in a Denoiser's place."""

    prior: Gaussian

    def coefficients(self, sigma):
        return Denoiser(torch.nn.Identity(), SD).coefficients(sigma)

    def raw(self, scaled, sigma):
        c_skip, c_out, c_in = self.coefficients(sigma)
        x = scaled / c_in
        return (self.prior.denoiser(x, sigma) - c_skip * x) / c_out


def loss_of(denoiser, count=20_000):
    """EDM's loss on fresh images, and its standard error."""
    generator = torch.Generator().manual_seed(5)
    x0 = gaussian().sample(count, generator)
    noisy = CORRUPTION(x0, Draws(5, range(count)))
    with torch.no_grad():
        losses = denoising_loss(denoiser, x0, noisy.x, noisy.sigma)
    return float(losses.mean()), float(losses.std()) / count**0.5


def test_the_closed_form_denoiser_has_the_least_loss():
    least, (got, error) = least_loss(gaussian()), loss_of(Exact(gaussian()))
    assert abs(got - least) < 5 * error
    assert error < 0.01 * least


@cache
@torch.enable_grad()
def trained():
    """By the project's own loop, 60 thousand images, all different."""
    torch.manual_seed(0)
    plan = Schedule(
        total_kimg=60, batch_size=128, batch_gpu=128, learning_rate=2e-2, ramp_kimg=1, cooldown=0.6,
        averages=halflife(kimg=4, rampup=0.05), decay_kimg=None, check_updates=50, kimg_per_tick=50, snapshot_ticks=1000,
        max_gradient=None, crop=None, precision="fp32", seed=0,
    )  # fmt: skip

    def batches(start, stop):
        for first in range(start, stop, plan.batch_size):
            x0 = gaussian().sample(plan.batch_size, generator_for("data", 0, first)).float()
            yield ["gaussian"] * plan.batch_size, SCALING.to_tile(x0)

    states = train(
        State.fresh(Denoiser(LinearNetwork(16), SD)), batches, plan, decode=lambda tiles: tiles, scaling=SCALING, corruption=CORRUPTION,
        device=torch.device("cpu"), validate=lambda _: {}, on_step=lambda *_: None, should_stop=lambda: False,
    )  # fmt: skip
    return list(states)[-1].ema.double()


def test_training_comes_near_the_least_loss():
    least, (exact, _), (got, error) = least_loss(gaussian()), loss_of(Exact(gaussian())), loss_of(trained())
    untrained, _ = loss_of(Denoiser(LinearNetwork(16).double(), SD))
    assert got > least - 5 * error
    assert exact < got < exact + 0.03 * (untrained - exact)


@pytest.mark.parametrize("sigma", LEVELS)
def test_training_finds_the_closed_form_denoiser(sigma):
    """To two per cent of the error that even the exact one makes."""
    prior, generator = gaussian(), torch.Generator().manual_seed(6)
    x0, level = prior.sample(4000, generator), torch.full((4000, 1, 1, 1), sigma, dtype=torch.float64)
    x = x0 + level * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        excess = (trained()(x, level) - prior.denoiser(x, level)).square().mean()
    assert excess < 0.02 * (prior.denoiser(x, level) - x0).square().mean()


def test_the_trained_prior_is_sampled_with_the_datas_mean_and_covariance():
    prior, count = gaussian(), 4000
    sigmas = karras_sigmas(18, 0.01, 6.0)
    generator = torch.Generator().manual_seed(7)
    x = 6.0 * torch.randn(count, *prior.shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        draws = finish(heun(trained(), x, sigmas, generator)).flatten(1)
    values, axes = prior.axes
    assert (draws.mean(0) / prior.covariance.diag().sqrt()).abs().max() < 5 / count**0.5
    # every variance in the prior's own axes, the small ones too; 5 standard errors are 0.11
    assert ((draws @ axes).var(0) / values - 1).abs().max() < 5 * (2 / count) ** 0.5 + 0.05


def test_the_shipped_prior_answers_as_when_it_was_trained():
    """Its network's weights keep their names, and its function stays: values noted in November 2026."""
    network = NETWORKS["pyramid_unet"](widths=[48, 96, 144], blocks=2, details=[[0, 2], [0, 4], [1, 4], [2, 8]])
    shipped = load_file(Path(lowlight_kedro.__file__).parent / "priors" / "photographs.safetensors")
    network.load_state_dict({name.removeprefix("general."): value for name, value in shipped.items() if name.startswith("general.")})
    place = torch.arange(3 * 32 * 32, dtype=torch.float32).reshape(1, 3, 32, 32)
    x, sigma = torch.sin(place * 0.37) + 0.5 * torch.cos(place * 0.011), 0.3 + 0.2 * torch.sin(place * 0.05)
    with torch.no_grad():
        answer = Denoiser(network, SD)(x, sigma)
    noted = [0.36187, -0.0444, -0.2937, 0.83988, -0.92785, 0.86659, -0.18122, 0.3533, -0.08527]
    assert answer[0, :, ::13, ::13].flatten()[::3].tolist() == pytest.approx(noted, abs=1e-4)


@pytest.mark.parametrize("mosaic", ["bayer", "xtrans"])
def test_the_shipped_experts_answer_quiet_mosaics(mosaic):
    """Each in its place: on a smooth coloured surface with little noise, the three channels come back everywhere."""
    prior = load_prior(device="cpu", precision="fp32")
    rows, columns = torch.meshgrid(torch.arange(96) / 96, torch.arange(96) / 96, indexing="ij")
    light = torch.stack([0.2 + 0.3 * rows, 0.3 + 0.2 * columns, 0.5 - 0.3 * rows * columns])[None]
    mask = torch.from_numpy(masks({"bayer": BAYER_RGGB, "xtrans": XTRANS}[mosaic], (96, 96)))[None]
    noise = 0.002
    x = prior.to_network(light + noise * torch.randn(light.shape, generator=torch.Generator().manual_seed(0)))
    span = float(prior.to_network(1.0) - prior.to_network(0.0))
    answer = prior.to_light(prior(torch.where(mask, x, 0.0), torch.where(mask, noise * span, 80.0)))
    error = (answer - light)[..., 8:-8, 8:-8]
    assert error.abs().max() < 5 * noise
    assert error.square().mean().sqrt() < noise
