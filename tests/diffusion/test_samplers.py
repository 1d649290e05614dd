import pytest
import torch

from lowlight_kedro.diffusion.samplers import SAMPLERS, finish, heun, karras_sigmas
from tests.diffusion.gaussian import Gaussian

DRAWS, SIGMA_MAX = 4000, 40.0


def run(sampler, prior, steps, draws=DRAWS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sigmas = karras_sigmas(steps, 0.002, SIGMA_MAX)
    x = SIGMA_MAX * torch.randn(draws, *prior.shape, dtype=torch.float64, generator=generator)
    return finish(sampler(prior.denoiser, x, sigmas, generator)).flatten(1)


@pytest.mark.parametrize(("name", "steps", "tolerance"), [("heun", 40, 0.03), ("ancestral", 200, 0.06)])
def test_a_gaussian_prior_is_sampled_with_its_mean_and_covariance(name, steps, tolerance):
    prior = Gaussian.smooth()
    x = run(SAMPLERS[name], prior, steps)
    std = prior.covariance.diag().sqrt()
    assert ((x.mean(0) - prior.mean) / std).abs().max() < 5 / DRAWS**0.5
    # in the prior's own axes every variance must be right, the small ones too
    values, axes = torch.linalg.eigh(prior.covariance)
    ratio = ((x - prior.mean) @ axes).var(0) / values
    sampling = 5 * (2 / DRAWS) ** 0.5
    assert (ratio - 1).abs().mean() < tolerance + sampling / 5
    assert (ratio - 1).abs().max() < 3 * tolerance + sampling


def test_every_sampler_is_tested_above():
    assert SAMPLERS.keys() == {"heun", "ancestral"}


def test_heuns_error_falls_with_the_square_of_the_steps():
    prior = Gaussian.smooth(shape=(1, 3, 3))
    x = SIGMA_MAX * torch.randn(8, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def end(steps):
        sigmas = karras_sigmas(steps, 0.05, SIGMA_MAX)[:-1]  # to a fixed level: the last Euler step is first order
        return finish(heun(prior.denoiser, x, sigmas, torch.Generator()))

    exact = end(1600)
    errors = torch.tensor([float((end(steps) - exact).norm()) for steps in (25, 50, 100)])
    slopes = torch.log2(errors[:-1] / errors[1:])
    assert ((slopes > 1.7) & (slopes < 2.4)).all(), slopes


def test_karras_levels_begin_and_end_where_told():
    sigmas = karras_sigmas(18, 0.002, 80.0)
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
