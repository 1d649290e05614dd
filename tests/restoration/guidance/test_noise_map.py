"""noise_map is exact on every Gaussian prior."""

import pytest
import torch

from lowlight_kedro.restoration.guidance import noise_map
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from tests.restoration.guidance.scenes import MASKS, drawn, given_both, level, normal, repeated, scene


@pytest.mark.parametrize("name", MASKS)
def test_gives_the_exact_posterior_mean_in_one_evaluation(name):
    at = scene(name)
    got = noise_map(at.prior.denoiser, at.measurement).denoiser(torch.randn_like(at.mean), level(SIGMA_UNKNOWN))
    # an unknown site still has a level, 80: what that leaves is far below any posterior spread
    assert ((got - at.mean) / at.std).abs().max() < 2e-3


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_is_the_exact_posterior_denoiser_at_every_level(name, sigma):
    """E[x0 | x_t, y] from both looks at once must be the Gaussian posterior for both."""
    at = scene(name)
    x = at.truth + sigma * normal(at.truth, torch.Generator().manual_seed(1))
    got = noise_map(at.prior.denoiser, at.measurement).denoiser(x, level(sigma))
    torch.testing.assert_close(got, given_both(at.prior, at.measurement, x, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["rgb", "xtrans"])
def test_heun_over_its_denoiser_draws_the_posterior(name):
    draws = 1000
    at = scene(name)
    posterior = noise_map(at.prior.denoiser, repeated(at.measurement, draws))
    # from the posterior's own marginal at sigma_max, so that only denoiser and solver are judged
    first = at.mean.expand_as(at.truth.expand(draws, *at.truth.shape[1:]))
    only_denoiser = type(posterior)(denoiser=posterior.denoiser)
    x = drawn(only_denoiser, first, 79, torch.Generator().manual_seed(1), sigma_min=0.002, sigma_max=20.0)
    assert ((x.mean(0) - at.mean[0]) / at.std).abs().max() < 5 / draws**0.5 + 0.02
    ratio = x.var(0) / at.std.square()
    assert 0.95 < ratio.mean() < 1.05
    assert (ratio - 1).abs().max() < 0.05 + 5 * (2 / draws) ** 0.5
