"""Draws by the reverse SDE over maps, against exact posteriors: covariances by linear algebra, then by Monte Carlo."""

from importlib import import_module

import pytest
import torch

from lowlight_kedro.diffusion.samplers import finish
from lowlight_kedro.restoration.guidance import noise_map
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

MODULE = import_module("lowlight_kedro.restoration.guidance.noise_map")  # the package has the function under this name
SMALL, LARGE = (3, 6, 6), (3, 8, 8)
LEVELS = {"two levels": (0.2, 0.02), "dark": (1.0, 1.0), "bright": (0.02, 0.02)}


def mask_of(name, shape):
    if name == "rgb":
        return torch.ones(1, *shape, dtype=torch.float64)
    return torch.from_numpy(masks({"bayer": BAYER_RGGB, "xtrans": XTRANS}[name], shape[1:])).double()[None]


def white(shape, std=0.5):
    count = torch.tensor(shape).prod().item()
    return Gaussian(torch.full((count,), 0.1, dtype=torch.float64), std**2 * torch.eye(count, dtype=torch.float64), shape)


def scene(name, levels=(0.2, 0.02), shape=SMALL, prior=None):
    """A prior, one measurement with s = levels on its left and right half, and the exact posterior."""
    generator = torch.Generator().manual_seed(0)
    prior, mask = prior or Gaussian.smooth(shape), mask_of(name, shape)
    s = torch.full((1, *shape), levels[0], dtype=torch.float64)
    s[..., shape[-1] // 2 :] = levels[1]
    y = mask * (prior.sample(1, generator) + s * torch.randn(1, *shape, dtype=torch.float64, generator=generator))
    mean, covariance = prior.posterior(y.flatten(1), (mask / s.square()).flatten())
    return prior, Measurement(y, mask, s), mean.reshape(y.shape), covariance


def draw(prior, one, evaluations, batch=1, seed=1, **options):
    many = Measurement(one.y.expand(batch, -1, -1, -1), one.mask, one.s)
    posterior = noise_map(prior.denoiser, many, **options)
    return finish(posterior.draw(many.y, evaluations, torch.Generator().manual_seed(seed)))


def exact_law(monkeypatch, prior, one, evaluations, **options):
    """Mean and covariance of the draws, without sampling: the draw is affine in its noise, so each unit of noise is sent through alone."""
    count, step = one.s.numel(), iter(range(evaluations))
    unit = torch.eye(count, dtype=torch.float64)

    def impulses(like, generator):
        noise = torch.zeros(like.shape[0], count, dtype=torch.float64)
        first = next(step) * count
        noise[first : first + count] = unit
        return noise.reshape(like.shape)

    monkeypatch.setattr(MODULE, "standard_normal", impulses)
    answers = draw(prior, one, evaluations, batch=(evaluations - 1) * count + 1, **options).flatten(1)
    monkeypatch.undo()
    answers, mean = answers[:-1] - answers[-1], answers[-1]  # the last of the batch got no noise
    return mean.reshape(one.y.shape), answers.T @ answers


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["rgb", "bayer", "xtrans"])
def test_draws_of_40_evaluations_have_the_posterior_mean_and_variance(monkeypatch, name, levels):
    prior, one, mean, covariance = scene(name, LEVELS[levels])
    got_mean, got = exact_law(monkeypatch, prior, one, 40)
    bias = ((got_mean - mean).flatten() / covariance.diag().sqrt()).abs().max()
    assert bias < (1e-9 if name == "rgb" else 2e-3)
    ratio = got.diag() / covariance.diag()
    assert ratio.min() > 0.97
    assert ratio.max() < 1.03
    assert (got - covariance).abs().max() < 0.03 * covariance.diag().max()


@pytest.mark.parametrize("name", ["rgb", "bayer"])
def test_20_evaluations_are_within_5_percent_and_more_are_no_worse(monkeypatch, name):
    prior, one, _, covariance = scene(name, (0.3, 0.1))
    errors = [(exact_law(monkeypatch, prior, one, n)[1].diag() / covariance.diag() - 1).abs().max() for n in (10, 20, 40)]
    assert errors[1] < 0.05
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("name", ["rgb", "bayer"])
def test_the_error_falls_with_the_square_of_the_steps(monkeypatch, name):
    """In each step's own limit: levels, start and end are the same, only the steps between them are halved."""
    prior, one, _, _ = scene(name, (0.5, 0.25), (3, 2, 2))
    trace = {n: exact_law(monkeypatch, prior, one, n)[1].diag().sum() for n in (20, 39, 77, 300)}
    errors = [abs(trace[n] - trace[300]) for n in (20, 39, 77)]
    assert 3 < errors[0] / errors[1] < 6
    assert 3 < errors[1] / errors[2] < 6


def misses(samples, mean, covariance, halves, slack=0.015):
    """By how many standard errors the largest bias and the variance of each half miss the exact posterior, beyond `slack`."""
    count, variance = len(samples), covariance.diag()
    correlation = covariance / (variance[:, None] * variance).sqrt()
    worst = [((samples.mean(0) - mean).flatten() / (variance / count).sqrt()).abs().max()]
    for half in halves:
        ratio = (samples.flatten(1).var(0) / variance)[half].mean()
        error = (2 / count * correlation[half][:, half].square().mean()).sqrt()
        worst.append(((ratio - 1).abs() - slack).clamp(min=0) / error)
    return max(worst)


@pytest.mark.parametrize("name", ["rgb", "bayer", "xtrans"])
def test_monte_carlo_agrees_and_sees_a_noise_level_that_is_wrong_by_10_percent(name):
    """The 192-dimensional test: s = 0.2 on the left half, 0.02 on the right, 3,000 draws."""
    prior, one, mean, covariance = scene(name, shape=LARGE)
    left = torch.zeros(LARGE, dtype=torch.bool)
    left[..., : LARGE[-1] // 2] = True
    halves = (left.flatten(), ~left.flatten())
    assert misses(draw(prior, one, 40, 3000), mean, covariance, halves) < 5
    wrong = Measurement(one.y, one.mask, 1.1 * one.s)
    assert misses(draw(prior, wrong, 40, 3000), mean, covariance, halves) > 5


def test_the_first_step_of_unknown_sites_is_repaid_too(monkeypatch):
    """From a start of only twice the prior's spread: what the step from unknown lacks, 1 / 4 of its noise, is seen in the draw."""
    prior, one, _, covariance = scene("bayer", shape=(3, 2, 2), prior=white((3, 2, 2)))
    got = exact_law(monkeypatch, prior, one, 40, sigma_start=1.0)[1]
    missing = one.mask.flatten() == 0
    assert (got.diag() / covariance.diag())[missing].min() > 0.98


@pytest.mark.parametrize("measured", [True, False])
def test_a_posterior_with_two_modes_keeps_its_weights_and_widths(measured):
    """Sites are near -0.5 or 0.5, within 0.05, equally often; all see the same y, so that each is a draw of one scalar posterior."""
    s, y, modes, spread = 0.5, 0.1 * measured, torch.tensor([-0.5, 0.5], dtype=torch.float64), 0.05**2

    def denoiser(x, sigma):
        noise = sigma[..., None].square()
        weight = (-0.5 * (x[..., None] - modes).square() / (spread + noise)).softmax(-1)
        return (weight * (modes * noise + spread * x[..., None]) / (spread + noise)).sum(-1)

    frame = torch.full((1, 3, 64, 64), float(y), dtype=torch.float64)
    one = Measurement(frame, torch.full_like(frame, float(measured)), torch.full_like(frame, s))
    x = finish(noise_map(denoiser, one).draw(frame, 40, torch.Generator().manual_seed(0)))
    level = torch.full((1,), s if measured else SIGMA_UNKNOWN, dtype=torch.float64)
    exact = (-0.5 * (y - modes).square() / (spread + level.square())).softmax(-1)[1]
    fraction = (x > 0).double().mean()
    assert abs(fraction - exact) < 5 * (exact * (1 - exact) / x.numel()).sqrt() + 0.003
    width = spread * s**2 / (spread + s**2) if measured else spread
    assert (x[x > 0].var() / width).item() == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 10])
@pytest.mark.parametrize("name", ["rgb", "bayer"])
def test_the_denoiser_is_asked_as_often_as_told_and_at_levels_it_knows(name, evaluations):
    prior, one, mean, _ = scene(name, (0.2, 0.006))
    one.y[one.mask == 0] = 7.0  # what stands where nothing was measured must not matter
    asked = []

    def counted(x, sigma):
        asked.append((x.clone(), sigma.clone()))
        return prior.denoiser(x, sigma)

    posterior = noise_map(counted, one, sigma_min=0.01)
    states = list(posterior.draw(one.y, evaluations, torch.Generator().manual_seed(0)))
    assert len(asked) == len(states) == evaluations
    missing, first, sigmas = one.mask == 0, asked[0], torch.stack([sigma for _, sigma in asked])
    assert torch.equal(first[1], torch.where(missing, SIGMA_UNKNOWN, one.s))
    assert torch.equal(first[0], one.mask * one.y)
    assert (sigmas[1:] < sigmas[:-1]).all()
    assert (sigmas >= torch.minimum(torch.tensor(0.01), one.s / 2)).all()
    assert states[-1].isfinite().all()
    if evaluations == 1:
        torch.testing.assert_close(states[0], mean, rtol=0, atol=1e-4)
    if evaluations == 10:
        lowest = torch.where(missing, (0.05 * one.s).clamp(min=0.01), torch.maximum(0.05 * one.s, (one.s / 2).clamp(max=0.01)))
        torch.testing.assert_close(sigmas[-1], lowest)


def test_levels_start_unknown_sites_above_the_spread_and_halve_the_variance_last():
    _, one, _, _ = scene("bayer")
    levels = MODULE.lowered_levels(one, 30, start=2.5, end=0.1, sigma_min=0.01)
    measured = one.mask > 0
    assert (levels(1)[~measured] == 2.5).all()
    assert (levels(29)[measured] < levels(28)[measured]).all()
    torch.testing.assert_close((levels(29) / levels(28)).square()[measured & (one.s > 0.1)], torch.tensor(0.5).double().expand(18))
    ratios = torch.stack([levels(i)[measured] / one.s[measured] for i in range(30)])
    wide = one.s[measured] > 0.1
    assert torch.allclose(ratios[:, wide], ratios[:, wide][:, :1].expand(-1, wide.sum()))  # one proportion for all
    steps = -ratios[:-1, wide][:, 0].log().diff()
    assert (steps.diff() > 0).all()  # small ones first, before modes part


def test_a_draw_is_reproducible_changes_no_input_and_works_in_float32():
    prior, one, _, _ = scene("bayer")
    before = [t.clone() for t in (one.y, one.mask, one.s)]
    assert torch.equal(draw(prior, one, 5), draw(prior, one, 5))
    assert not torch.equal(draw(prior, one, 5), draw(prior, one, 5, seed=2))
    single = Measurement(one.y.float(), one.mask.float(), one.s.float())

    def denoiser(x, sigma):
        assert x.dtype == sigma.dtype == torch.float32
        return prior.denoiser(x.double(), sigma.double()).float()

    x = finish(noise_map(denoiser, single).draw(single.y, 40, torch.Generator().manual_seed(1)))
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(before, (one.y, one.mask, one.s), strict=True))
