"""Guidance against exact answers: on a Gaussian prior the posterior is known."""

import pytest
import torch

from lowlight_kedro.diffusion.samplers import finish, heun, karras_sigmas
from lowlight_kedro.restoration.guidance import GUIDANCE, diffpir, dps, noise_map
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

SHAPE = (3, 6, 6)
MASKS = {
    "rgb": torch.ones(1, *SHAPE, dtype=torch.float64),
    "bayer": torch.from_numpy(masks(BAYER_RGGB, SHAPE[1:])).double()[None],
    "xtrans": torch.from_numpy(masks(XTRANS, SHAPE[1:])).double()[None],
}
UNKNOWN = torch.full((1, 1, 1, 1), SIGMA_UNKNOWN, dtype=torch.float64)


def scene(name, draws=1, seed=0):
    """A Gaussian prior, truths drawn from it, a heteroscedastic measurement, and the exact posterior."""
    generator = torch.Generator().manual_seed(seed)
    prior, mask = Gaussian.smooth(SHAPE), MASKS[name]
    s = torch.full((1, *SHAPE), 0.3, dtype=torch.float64)
    s[..., 3:] = 0.05
    truth = prior.sample(draws, generator)
    y = mask * (truth + s * torch.randn(truth.shape, dtype=torch.float64, generator=generator))
    mean, covariance = prior.posterior(y.flatten(1), (mask / s.square()).flatten())
    return prior, truth, Measurement(y, mask, s), mean.reshape(y.shape), covariance


@pytest.mark.parametrize("name", MASKS)
def test_noise_map_gives_the_exact_posterior_mean_in_one_evaluation(name):
    prior, _, measurement, mean, covariance = scene(name)
    got = noise_map(prior.denoiser, measurement).denoiser(torch.randn_like(mean), UNKNOWN)
    error = (got - mean).flatten() / covariance.diag().sqrt()
    # an unknown site still has a level, 80: what that leaves is far below any posterior spread
    assert error.abs().max() < 2e-3


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("level", [0.05, 0.5, 5.0])
def test_noise_map_is_the_exact_posterior_denoiser_at_every_level(name, level):
    """E[x0 | x_t, y] from both looks at once must be the Gaussian posterior for both."""
    prior, truth, measurement, _, _ = scene(name)
    x = truth + level * torch.randn(truth.shape, dtype=torch.float64)
    precision_y, precision_x = measurement.mask / measurement.s.square(), torch.full_like(x, level**-2)
    z = (measurement.y * precision_y + x * precision_x) / (precision_y + precision_x)
    exact, _ = prior.posterior(z.flatten(1), (precision_y + precision_x).flatten())
    got = noise_map(prior.denoiser, measurement).denoiser(x, torch.full((1, 1, 1, 1), level, dtype=torch.float64))
    torch.testing.assert_close(got.flatten(1), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MASKS)
def test_heun_with_noise_map_draws_the_posterior(name):
    draws = 3000
    prior, _, one, mean, covariance = scene(name)
    generator = torch.Generator().manual_seed(1)
    sigmas = karras_sigmas(40, 0.002, 20.0)
    # from the posterior's own marginal at sigma_max, so that only denoiser and solver are judged
    x = mean + 20.0 * torch.randn(draws, *SHAPE, dtype=torch.float64, generator=generator)
    x = finish(heun(noise_map(prior.denoiser, one).denoiser, x, sigmas, generator))
    std = covariance.diag().sqrt()
    assert ((x.mean(0) - mean[0]).flatten() / std).abs().max() < 5 / draws**0.5 + 0.02
    ratio = x.flatten(1).var(0) / covariance.diag()
    assert 0.95 < ratio.mean() < 1.05
    assert (ratio - 1).abs().max() < 0.05 + 5 * (2 / draws) ** 0.5


def test_diffpir_is_exact_where_its_assumption_holds():
    """Its surrogate is a white prior N(0, sd^2): there D_y must be the posterior mean given x_t and y."""
    count = torch.tensor(SHAPE).prod().item()
    white = Gaussian(torch.zeros(count, dtype=torch.float64), 0.25 * torch.eye(count, dtype=torch.float64), SHAPE)
    _, truth, measurement, _, _ = scene("bayer")
    x = truth + 0.4 * torch.randn(truth.shape, dtype=torch.float64)
    precision_y, precision_x = measurement.mask / measurement.s.square(), torch.full_like(x, 0.4**-2)
    z = (measurement.y * precision_y + x * precision_x) / (precision_y + precision_x)
    exact, _ = white.posterior(z.flatten(1), (precision_y + precision_x).flatten())
    got = diffpir(white.denoiser, measurement, sigma_data=0.5).denoiser(x, torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64))
    torch.testing.assert_close(got.flatten(1), exact, rtol=1e-6, atol=1e-6)


def test_dps_moves_along_the_gradient_of_its_likelihood():
    prior, truth, measurement, _, _ = scene("bayer")
    x = truth + 0.5 * torch.randn(truth.shape, dtype=torch.float64)
    sigma = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)

    def objective(at):
        error = measurement.mask * (measurement.y - prior.denoiser(at, sigma)) / measurement.s
        return measurement.mask.sum() / 2 * error.square().sum().log()

    direction, h = torch.randn(x.shape, dtype=torch.float64), 1e-5
    slope = (objective(x + h * direction) - objective(x - h * direction)) / (2 * h)
    step = prior.denoiser(x, sigma) - dps(prior.denoiser, measurement).denoiser(x, sigma)
    torch.testing.assert_close((step * direction).sum() / sigma.squeeze() ** 2, slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("name", MASKS)
def test_no_guidance_beats_the_mmse_bound_and_each_beats_the_prior(guidance, name):
    """Mean squared error over truths, against the trace of the posterior covariance: the least there can be."""
    draws = 400
    prior, truth, measurement, _, covariance = scene(name, draws)
    sigmas = karras_sigmas(30, 0.01, 5.0)
    generator = torch.Generator().manual_seed(2)
    x = 5.0 * torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    x = finish(heun(GUIDANCE[guidance](prior.denoiser, measurement).denoiser, x, sigmas, generator))
    errors = (x - truth).square().flatten(1).mean(1)
    bound = covariance.diag().mean()
    assert errors.mean() > bound - 5 * errors.std() / draws**0.5
    assert errors.mean() < prior.covariance.diag().mean()


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_guidance_changes_none_of_its_inputs(guidance):
    prior, truth, measurement, _, _ = scene("bayer")
    before = [t.clone() for t in (truth, measurement.y, measurement.mask, measurement.s)]
    GUIDANCE[guidance](prior.denoiser, measurement).denoiser(truth, torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(before, (truth, measurement.y, measurement.mask, measurement.s), strict=True))
