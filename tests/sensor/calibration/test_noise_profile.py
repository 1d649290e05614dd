import numpy as np
import pytest

from lowlight_kedro.sensor.calibration.estimate import noise_profile
from lowlight_kedro.sensor.noise import PoissonGaussian


def test_the_estimate_has_the_variance_of_the_profile():
    scale, offset = 6.524e-3, 7.132e-6  # SIDD, Galaxy S6, ISO 400
    estimate = noise_profile([(scale, offset)])
    x = np.array([0.0, 0.1, 1.0])
    np.testing.assert_allclose(PoissonGaussian(estimate.gain, estimate.read_noise).variance(x), scale * x + offset)


def test_it_is_poor_says_why_and_is_wide_as_nobody_knows_how_it_was_made():
    estimate = noise_profile([(1e-4, 4e-8)])
    assert (estimate.verdict, estimate.reason) == ("poor", "maker's own profile")
    assert estimate.gain_error == pytest.approx(0.2 * estimate.gain)
    assert estimate.read_noise_error == pytest.approx(0.2 * estimate.read_noise)


def test_channels_are_averaged_and_their_spread_is_the_error():
    estimate = noise_profile([(1e-4, 4e-8), (2e-4, 4e-8), (3e-4, 4e-8)])
    assert estimate.gain == pytest.approx(2e-4)
    assert estimate.gain_error == pytest.approx(np.std([1e-4, 2e-4, 3e-4]))


@pytest.mark.parametrize("pair", [(0.0, 1e-8), (1e-4, -1e-8), (1e-4, 0.0), (np.nan, 1e-8)])
def test_a_profile_without_noise_is_unusable(pair):
    assert noise_profile([pair]).verdict == "unusable"


def test_a_flat_list_is_refused():
    with pytest.raises(ValueError, match="one \\(S, O\\) per colour plane"):
        noise_profile([1e-4, 1e-8])  # type: ignore[list-item]
