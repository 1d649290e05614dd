from functools import partial

import pytest
import torch

from lowlight_kedro.diffusion.samplers import SAMPLERS, ancestral, edm, finish, heun, karras_sigmas, steps_within
from tests.diffusion.gaussian import Gaussian

DRAWS, SIGMA_MAX = 3000, 40.0


def run(sampler, prior, steps, draws=DRAWS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sigmas = karras_sigmas(steps, 0.002, SIGMA_MAX)
    x = SIGMA_MAX * torch.randn(draws, *prior.shape, dtype=torch.float64, generator=generator)
    return finish(sampler(prior.denoiser, x, sigmas, generator)).flatten(1)


@pytest.mark.parametrize(("name", "steps", "tolerance"), [("heun", 40, 0.03), ("edm", 60, 0.03), ("ancestral", 200, 0.06)])
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
    assert SAMPLERS.keys() == {"heun", "edm", "ancestral"}


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


def test_edm_without_churn_is_heun():
    prior = Gaussian.smooth()
    torch.testing.assert_close(run(partial(edm, churn=0.0), prior, 10, draws=5), run(heun, prior, 10, draws=5))
    outside = partial(edm, churn=40.0, churn_min=0.1, churn_max=0.05)
    torch.testing.assert_close(run(outside, prior, 10, draws=5), run(heun, prior, 10, draws=5))


@pytest.mark.parametrize(("churn", "raised"), [(1.0, 1.25), (9.0, 2**0.5)])
def test_edm_evaluates_at_the_raised_levels_and_holds_their_noise(churn, raised):
    """Algorithm 2: gamma = min(S_churn / N, sqrt(2) - 1); around a constant D the state holds exactly sigma'."""
    sigmas, seen = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).double(), []
    x = 4.0 * torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def constant(x, sigma):
        seen.append((float(sigma), float(x.std())))
        return torch.zeros_like(x)

    finish(edm(constant, x, sigmas, torch.Generator().manual_seed(1), churn=churn))
    assert [level for level, _ in seen] == pytest.approx([4 * raised, 3, 3 * raised, 2, 2 * raised, 1, raised])
    assert [std / level for level, std in seen] == pytest.approx([1] * 7, rel=0.03)


def test_edm_inflates_the_noise_that_it_adds():
    x = torch.zeros(20_000, 1, 1, 1, dtype=torch.float64)
    stds = []

    def spy(x, sigma):
        stds.append(float(x.std()))
        return torch.zeros_like(x)

    finish(edm(spy, x, torch.tensor([1.0, 0.0]).double(), torch.Generator().manual_seed(0), churn=9.0, inflation=1.5))
    assert stds == pytest.approx([1.5], rel=0.03)  # sqrt(2 - 1) * 1.5


@pytest.mark.parametrize(("sampler", "per_step"), [(heun, 2), (edm, 2), (partial(edm, churn=9.0), 2), (ancestral, 1)])
@pytest.mark.parametrize("evaluations", [1, 2, 7, 40])
def test_steps_within_spends_what_it_is_given_and_no_more(sampler, per_step, evaluations):
    calls = []

    def denoiser(x, sigma):
        calls.append(1)
        return x / 2

    sigmas = karras_sigmas(steps_within(sampler, evaluations), 0.01, 5.0)
    finish(sampler(denoiser, torch.ones(1, 1, 1, 1), sigmas, torch.Generator().manual_seed(0)))
    assert evaluations - per_step < len(calls) <= evaluations
