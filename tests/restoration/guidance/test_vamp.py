"""vamp: the posterior mean of a prior on uniform levels."""

import pytest
import torch

from lowlight_kedro.restoration.guidance import vamp
from lowlight_kedro.restoration.guidance.gradient_free import mean_gain
from tests.restoration.guidance.scenes import MASKS, NOISES, Counted, level, normal, scene


def gains(prior, sigmas=(0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.5, 3.0, 10.0)):
    values, _ = prior.axes
    return [[sigma, float((values / (values + sigma**2)).mean())] for sigma in sigmas]


def error(at, **options):
    return (((vamp(at.prior.denoiser, at.measurement, **options).mean() - at.mean) / at.std).square().mean().sqrt()).item()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", MASKS)
def test_it_converges_to_the_exact_posterior_mean(noise, name):
    at = scene(name, noise, draws=8)
    errors = [error(at, iterations=n) for n in (1, 3, 40)]
    assert errors[1] < 0.25
    assert errors[2] < 2e-3
    assert errors[1] < errors[0] + 1e-6


def test_one_iteration_is_exact_where_all_sites_are_equally_good():
    assert error(scene("rgb", "homoscedastic", draws=8), iterations=1) < 1e-9


@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_what_it_converges_to_does_not_depend_on_damping_start_or_gain(damping):
    at = scene("bayer", draws=4)
    assert error(at, iterations=60, damping=damping, reach=2, sigma_data=1.0, gain=gains(at.prior)) < 5e-3


@pytest.mark.parametrize(("gain", "evaluations"), [(False, 6), (True, 3)])
def test_what_it_costs(gain, evaluations):
    at = scene("bayer")
    counted = Counted(at.prior.denoiser)
    vamp(counted, at.measurement, gain=gains(at.prior) if gain else None).mean()
    assert counted.evaluations == evaluations


@pytest.mark.parametrize("name", MASKS)
def test_three_evaluations_with_a_table_are_as_good_as_documented(name):
    at = scene(name, draws=32)
    assert error(at, gain=gains(at.prior)) < 0.2


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
def test_the_mean_gain_is_the_mean_diagonal_of_the_jacobian(sigma):
    at = scene("rgb", draws=4)
    x = normal(at.truth, torch.Generator().manual_seed(0))
    got = mean_gain(at.prior.denoiser, x, at.prior.denoiser(x, level(sigma)), level(sigma))
    values, _ = at.prior.axes
    exact = values / (values + sigma**2)
    # Hutchinson's estimate deviates by at most sqrt(2 |J|_F^2) / N, here for one set of signs
    assert got.flatten() == pytest.approx(exact.mean().item(), abs=4 * (2 * exact.square().sum()).sqrt().item() / len(exact))
    pointwise = mean_gain(lambda x, s: 0.3 * x + x.square().mean(), x, 0.3 * x + x.square().mean(), level(1e-6))
    assert pointwise.flatten() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("gain", [0.0, 1.0, -0.5, 1.5])
def test_a_denoiser_of_impossible_gain_gives_a_finite_mean(gain):
    at = scene("bayer")
    assert vamp(lambda x, sigma: gain * x, at.measurement).mean().isfinite().all()
