"""dps, pigdm and mmps: guidance through the denoiser's Jacobian."""

import pytest
import torch

from lowlight_kedro.restoration.guidance import dps, mmps, pigdm
from lowlight_kedro.restoration.guidance.posterior import surrogate_variance
from lowlight_kedro.restoration.measurement import Measurement
from tests.restoration.guidance.scenes import MASKS, Counted, drawn, given_both, level, normal, repeated, scene, white

SIGMAS = [0.05, 0.5, 5.0]


def noisy(at, sigma):
    return at.truth + sigma * normal(at.truth, torch.Generator().manual_seed(1))


def system(at, sigma):
    """V (N, N), A V A^T + S with ones for what was not measured, mask (N,)."""
    covariance = at.prior.covariance
    v = covariance - covariance @ torch.linalg.solve(covariance + sigma**2 * torch.eye(len(covariance)), covariance)
    mask = at.measurement.mask.flatten()
    return v, mask[:, None] * v * mask + torch.diag(mask * at.measurement.s.flatten().square() + (1 - mask)), mask


@pytest.mark.parametrize("method", [dps, pigdm, mmps])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_each_is_exact_for_independent_values_of_the_supposed_variance(method, name, sigma):
    at = scene(name, draws=3, prior=white(0.5))
    x = noisy(at, sigma)
    got = method(at.prior.denoiser, at.measurement).denoiser(x, level(sigma))
    torch.testing.assert_close(got, given_both(at.prior, at.measurement, x, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [pigdm, dps, mmps])
@pytest.mark.parametrize("option", ["sigma_data", "variance"])
def test_the_variance_may_be_told(method, option):
    """By the data's standard deviation, or as a table."""
    at, sigmas = scene("bayer", draws=3, prior=white(0.2)), (0.01, 0.1, 1.0)
    options = {
        "sigma_data": {"sigma_data": 0.2},
        "variance": {"variance": [[s, s**2 * 0.04 / (s**2 + 0.04)] for s in sigmas], "sigma_data": 9.0},
    }[option]
    x = noisy(at, 0.1)
    got = method(at.prior.denoiser, at.measurement, **options).denoiser(x, level(0.1))
    torch.testing.assert_close(got, given_both(at.prior, at.measurement, x, 0.1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_pigdm_is_its_equation_with_the_jacobian_as_a_matrix(sigma):
    at = scene("bayer", draws=2)
    v, _, mask = system(at, sigma)
    x = noisy(at, sigma)
    mean = at.prior.denoiser(x, level(sigma))
    weight = mask / (at.measurement.s.flatten().square() + sigma**2 * 0.25 / (sigma**2 + 0.25))
    expected = mean.flatten(1) + ((at.measurement.y - mean).flatten(1) * weight) @ v
    got = pigdm(at.prior.denoiser, at.measurement, sigma_data=0.5).denoiser(x, level(sigma))
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("noise", ["homoscedastic", "heteroscedastic"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_mmps_is_the_exact_posterior_denoiser_of_correlated_priors_once_solved(noise, name, sigma):
    at = scene(name, noise, draws=2)
    x = noisy(at, sigma)
    exact = given_both(at.prior, at.measurement, x, sigma)
    errors = [((mmps(at.prior.denoiser, at.measurement, solves=n).denoiser(x, level(sigma)) - exact) / at.std).abs().max() for n in (1, 60)]
    assert errors[1] < 1e-4
    assert errors[1] < errors[0]


def test_one_solve_of_mmps_is_dps():
    at = scene("xtrans", draws=3)
    x = noisy(at, 0.5)
    one, other = dps(at.prior.denoiser, at.measurement), mmps(at.prior.denoiser, at.measurement, solves=1)
    torch.testing.assert_close(one.denoiser(x, level(0.5)), other.denoiser(x, level(0.5)))


def test_dps_moves_along_the_gradient_of_its_likelihood():
    at = scene("bayer")
    x, sigma = noisy(at, 0.5), level(0.5)
    weight = at.measurement.mask / (at.measurement.s.square() + surrogate_variance(sigma, 0.5))

    def objective(where):
        return (weight * (at.measurement.y - at.prior.denoiser(where, sigma)).square()).sum() / 2

    step = dps(at.prior.denoiser, at.measurement).denoiser(x, sigma) - at.prior.denoiser(x, sigma)
    h, generator = 1e-4, torch.Generator().manual_seed(3)
    slopes, moves = [], []
    for _ in range(3):
        direction = normal(x, generator)
        slopes.append((objective(x + h * direction) - objective(x - h * direction)) / (2 * h))
        moves.append((step * direction).sum())
    lengths = -torch.stack(moves) / torch.stack(slopes) / sigma.squeeze() ** 2
    torch.testing.assert_close(lengths, lengths[:1].expand(3), rtol=1e-6, atol=1e-6)
    assert lengths[0] > 0


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_length_of_dps_is_the_best_along_its_direction(sigma):
    """|a u - w|_K is least, K = S + A V A^T, w = K^-1 (y - A D)."""
    at = scene("bayer", draws=4)
    x = noisy(at, sigma)
    _, k, mask = system(at, sigma)
    error = mask * (at.measurement.y - at.prior.denoiser(x, level(sigma))).flatten(1)
    u = error / (at.measurement.s.flatten().square() + surrogate_variance(level(sigma), 0.5).item())
    exact = torch.linalg.solve(k, error.T).T
    best = ((u @ k) * exact).sum(1) / ((u @ k) * u).sum(1)
    v, _, _ = system(at, sigma)
    expected = at.prior.denoiser(x, level(sigma)).flatten(1) + best[:, None] * u @ v
    got = dps(at.prior.denoiser, at.measurement).denoiser(x, level(sigma)).flatten(1)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)
    half = dps(at.prior.denoiser, at.measurement, strength=0.5).denoiser(x, level(sigma)).flatten(1)
    torch.testing.assert_close(half, (expected + at.prior.denoiser(x, level(sigma)).flatten(1)) / 2, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("method", "products"), [(dps, 1), (pigdm, 1), (mmps, 3)])
def test_what_each_costs(method, products):
    at = scene("bayer")
    counted = Counted(at.prior.denoiser)
    method(counted, at.measurement).denoiser(at.truth, level(0.5))
    assert (counted.evaluations, counted.products) == (1, products)


@pytest.mark.parametrize(("method", "bias", "low", "high"), [(dps, 0.5, 0.75, 1.15), (pigdm, 0.75, 0.8, 1.4), (mmps, 0.25, 0.93, 1.07)])
@pytest.mark.parametrize("name", ["rgb", "bayer"])
def test_draws_on_a_correlated_prior_are_as_good_as_documented(method, bias, low, high, name):
    """Table of docs/guidance.md: bias of the mean in posterior standard deviations, variance over exact."""
    draws = 500
    at = scene(name)
    posterior = method(at.prior.denoiser, repeated(at.measurement, draws))
    x = drawn(posterior, at.mean.expand(draws, -1, -1, -1), 39, torch.Generator().manual_seed(1))
    assert ((x.mean(0) - at.mean[0]) / at.std).square().mean().sqrt() < bias
    assert low < (x.var(0) / at.std.square()).mean() < high


@pytest.mark.parametrize(("method", "most"), [(dps, 1), (mmps, 10)])
@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_a_jacobian_that_is_not_positive_gives_moderate_steps(method, most, sign):
    """At sigma = s and J = -1 the curvature s^2 + sigma^2 J is zero."""
    at = scene("bayer")
    measurement = Measurement(at.measurement.y, at.measurement.mask, torch.full_like(at.measurement.s, 0.3))
    moved = method(lambda x, sigma: sign * x, measurement).denoiser(at.truth, level(0.3)) - sign * at.truth
    error = at.measurement.mask * (at.measurement.y - sign * at.truth)
    assert moved.norm() <= most * error.norm()


@pytest.mark.parametrize("method", [dps, pigdm, mmps])
def test_no_graph_is_left_behind(method):
    """A graph that grows from step to step would hold every step's activations."""
    at = scene("bayer")
    assert not method(at.prior.denoiser, at.measurement).denoiser(at.truth, level(0.5)).requires_grad


@pytest.mark.parametrize("method", [dps, pigdm, mmps])
def test_a_measurement_that_is_met_moves_nothing(method):
    at = scene("bayer")
    mean = at.prior.denoiser(at.truth, level(0.5))
    met = Measurement(at.measurement.mask * mean, at.measurement.mask, at.measurement.s)
    torch.testing.assert_close(method(at.prior.denoiser, met).denoiser(at.truth, level(0.5)), mean)
