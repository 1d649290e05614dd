"""Coverage and chi^2 of Gaussian truth."""

import numpy as np
import pytest

from lowlight_kedro.evaluation.coverage import LEAST_STD, coverage, reference_variance
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
        share = level / 100
        assert found[f"coverage_{level}"] == pytest.approx(share, abs=5 * (share * (1 - share) / np.prod(SHAPE)) ** 0.5)
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
