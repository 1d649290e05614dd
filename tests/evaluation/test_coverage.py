"""Coverage and chi^2 of Gaussian truth."""

import numpy as np
import pytest

from lowlight_kedro.evaluation.coverage import (
    BINS,
    LEAST_STD,
    coverage,
    places,
    ranks,
    reference_variance,
    spread_against_error,
    verdict,
)
from lowlight_kedro.sensor.noise import PoissonGaussian

SHAPE = (3, 100, 200)
MASK = np.ones(SHAPE[1:], bool)


def told(rng, scale=1.0, mask=MASK):
    std = rng.uniform(0.01, 0.1, SHAPE)
    truth = rng.uniform(0, 1, SHAPE)
    return coverage(truth + std * rng.normal(size=SHAPE), truth, (scale * std) ** 2, mask)


def test_a_true_standard_deviation_covers_what_it_promises(rng):
    found = told(rng)
    for level in (50, 90, 95):
        fraction = level / 100
        assert found[f"coverage_{level}"] == pytest.approx(fraction, abs=5 * (fraction * (1 - fraction) / np.prod(SHAPE)) ** 0.5)
    assert found["chi2"] == pytest.approx(1, abs=5 * (2 / np.prod(SHAPE)) ** 0.5)


def test_one_that_is_ten_percent_off_is_found_out(rng):
    too_small, too_large = told(rng, 0.9), told(rng, 1.1)
    assert too_small["coverage_90"] < 0.875 < 0.91 < too_large["coverage_90"]
    assert too_small["chi2"] == pytest.approx(0.9**-2, rel=0.03)
    assert too_large["chi2"] == pytest.approx(1.1**-2, rel=0.03)


def test_only_what_may_be_compared_counts():
    image, truth, mask = np.zeros(SHAPE), np.ones(SHAPE), MASK.copy()
    mask[:, :100] = False
    truth[:, :, 100:] = 0
    assert coverage(image, truth, np.full(SHAPE, 1e-4), mask) == {"coverage_50": 1, "coverage_90": 1, "coverage_95": 1, "chi2": 0}


def test_a_zero_standard_deviation_is_half_a_step_of_the_file():
    image = np.full(SHAPE, LEAST_STD)
    assert coverage(image, np.zeros(SHAPE), np.zeros(SHAPE), MASK)["chi2"] == pytest.approx(1)


def test_the_reference_has_the_noise_of_its_sensor(rng):
    """Simulated: the variance of balanced light is that of the signal, times the gain squared."""
    noise, balance, light = PoissonGaussian(1e-3, 5e-3), (2.0, 1.0, 1.5), 0.3
    draws = [b * noise.sample(np.full(200_000, light / b), rng) for b in balance]
    expected = reference_variance(np.full((3, 1, 1), light), balance, vars(noise)).ravel()
    np.testing.assert_allclose([draw.var() for draw in draws], expected, rtol=5 * (2 / 200_000) ** 0.5)
    assert (reference_variance(np.full((3, 1, 1), -1.0), balance, vars(noise)) > 0).all()


def calibrated(rng, factor=1.0, bias=0.0, side=120):
    """An estimate whose error has the told std times `factor`; the std rises over the width."""
    std = np.broadcast_to(np.linspace(0.01, 0.1, side), (3, side, side))
    image = np.full((3, side, side), 0.4)
    truth = image + std * (factor * rng.normal(size=image.shape) + bias)
    return image, truth, std**2, np.ones((side, side), bool)


@pytest.mark.parametrize(("factor", "bias", "shape"), [(1.0, 0.0, "even"), (1.3, 0.0, "valley"), (0.7, 0.0, "hill"), (1.0, 0.3, "slope")])
def test_the_place_of_the_truth_shows_how_a_spread_is_wrong(rng, factor, bias, shape):
    image, truth, variance, mask = calibrated(rng, factor, bias)
    counts = places(image, truth, variance, mask)
    assert counts.sum() == truth.size
    expected = truth.size / BINS
    z = (counts - expected) / np.sqrt(expected)
    assert (np.abs(z).max() < 5) == (shape == "even")
    if shape != "even":
        outer, inner = z[[0, -1]], z[BINS // 2 - 1 : BINS // 2 + 1]
        assert {"valley": outer.min() > 5 > inner.max(), "hill": inner.min() > 5 > outer.max(), "slope": outer[0] < -5 and outer[1] > 5}[
            shape
        ]


def test_draws_of_the_truth_s_distribution_have_even_ranks_and_narrow_ones_a_valley(rng):
    draws, truth = rng.normal(size=(7, 3, 60, 60)), rng.normal(size=(3, 60, 60))
    mask = np.ones((60, 60), bool)
    expected = truth.size / 8
    assert np.abs(ranks(draws, truth, mask, rng) - expected).max() < 5 * np.sqrt(expected)
    narrow = ranks(0.7 * draws, truth, mask, rng)
    assert narrow[[0, -1]].min() > expected * 1.2
    ties = ranks(np.zeros((7, 3, 60, 60)), np.zeros((3, 60, 60)), mask, rng)  # clipped shadows
    assert np.abs(ties - expected).max() < 5 * np.sqrt(expected)


def test_spread_follows_error_where_it_is_true(rng):
    image, truth, variance, mask = calibrated(rng)
    told, made, count = np.array(spread_against_error(image, truth, variance, mask)).T
    assert (np.diff(told) > 0).all()
    np.testing.assert_allclose(made / told, 1, atol=5 / np.sqrt(2 * count.min()))
    _, made, _ = np.array(spread_against_error(*calibrated(rng, 1.5))).T
    assert (made / told > 1.3).all()


@pytest.mark.parametrize(
    ("fraction", "word"), [(0.88, "true: 88 %"), (0.8, "too narrow: 80 %"), (0.97, "too wide"), (float("nan"), "not measured")]
)
def test_the_verdict(fraction, word):
    assert verdict(fraction).startswith(word)
