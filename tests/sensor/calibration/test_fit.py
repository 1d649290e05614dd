import numpy as np
import pytest

from lowlight_kedro.sensor.calibration.estimate import NoiseEstimate, Points, combine
from lowlight_kedro.sensor.calibration.fit import disagreement, estimate_from, fit_transfer_line

from .simulation import covers

GAIN, FLOOR = 1e-4, 1.6e-7
MEANS = np.geomspace(1e-4, 0.5, 40)


def draw(rng, degrees=400, floor=FLOOR):
    """Sample variances of Gaussian noise on the line, with their relative error."""
    return (GAIN * MEANS + floor) * rng.chisquare(degrees, len(MEANS)) / degrees, np.full(len(MEANS), np.sqrt(2 / degrees))


def test_points_on_a_line_give_the_line():
    line = fit_transfer_line(MEANS, GAIN * MEANS + FLOOR, np.full(40, 0.01))
    assert (line.gain, line.floor) == pytest.approx((GAIN, FLOOR), rel=1e-9)


def test_the_errors_say_how_far_off_the_fit_is_and_there_is_no_bias(rng):
    lines = [fit_transfer_line(MEANS, *draw(rng, degrees=20)) for _ in range(300)]
    for name, truth in (("gain", GAIN), ("floor", FLOOR)):
        values, errors = (np.array([getattr(line, name + suffix) for line in lines]) for suffix in ("", "_error"))
        assert covers(values, errors, truth) >= 0.9
        assert not covers(values, errors, 1.1 * truth, reach=0.7) >= 0.9
        assert abs(values.mean() - truth) < 5 * values.std() / np.sqrt(len(values))


def test_weights_from_the_measured_variances_would_be_biased(rng):
    """Twin of the law above: what `fit_transfer_line` does not do."""
    slopes = []
    for _ in range(300):
        variance, _ = draw(rng, degrees=20)
        slopes.append(np.polyfit(MEANS, variance, 1, w=1 / variance)[0])
    assert np.mean(slopes) < GAIN - 5 * np.std(slopes) / np.sqrt(300)


def test_chi2_is_one_for_a_line_and_large_for_a_curve(rng):
    variance, error = draw(rng)
    assert fit_transfer_line(MEANS, variance, error).chi2 == pytest.approx(1, abs=5 * np.sqrt(2 / 38))
    curved = fit_transfer_line(MEANS, variance * (1 + MEANS), error)
    assert curved.chi2 > 2
    assert curved.gain_error > fit_transfer_line(MEANS, variance, error).gain_error


def test_a_few_wild_points_do_not_move_the_line(rng):
    variance, error = draw(rng)
    wild = variance.copy()
    wild[[3, 20, 35]] *= 3
    line = fit_transfer_line(MEANS, wild, error)
    assert not line.kept[[3, 20, 35]].any()
    assert abs(line.gain - GAIN) < 5 * line.gain_error


def test_a_read_noise_that_cannot_be_seen_is_bounded_and_called_poor(rng):
    variance, error = draw(rng, floor=0.0)
    variance -= 1e-10
    estimate = estimate_from(fit_transfer_line(MEANS, variance, error), Points(MEANS, variance, error * variance))
    assert estimate.read_noise > 0
    assert estimate.read_noise - 2 * estimate.read_noise_error <= 0
    assert estimate.verdict == "poor"


def test_two_points_are_refused():
    with pytest.raises(ValueError, match="at least 3 points at different means, got 2"):
        fit_transfer_line(MEANS[:2], MEANS[:2], MEANS[:2])


def test_channels_disagree_beyond_errors_and_a_fraction():
    assert disagreement([1.0, 1.01, 1.2], [0.01, 0.01, 0.01]).startswith("the gain of B")
    assert disagreement([1.0, 1.01, 1.2], [0.1, 0.1, 0.1]) == ""
    assert disagreement([1.0, 1.001, 1.02], [0.001, 0.001, 0.001]) == ""
    assert disagreement([np.nan, 1.0, np.nan], [np.nan, 0.1, np.nan]) == ""


def estimates(gains, error=1e-6, **more):
    return [NoiseEstimate(gain, error, 4e-4, 1e-6, **more) for gain in gains]


def test_combining_equal_estimates_shrinks_the_error_by_the_root_of_their_number():
    mean = combine(estimates([GAIN] * 4, row_noise=1e-4, row_noise_error=1e-5))
    assert (mean.gain, mean.gain_error) == pytest.approx((GAIN, 0.5e-6))
    assert (mean.row_noise, mean.row_noise_error) == pytest.approx((1e-4, 0.5e-5))
    assert mean.verdict == "good"


def test_the_surer_estimate_weighs_more():
    sure, unsure = estimates([1e-4], error=1e-6)[0], estimates([1.01e-4], error=2e-6)[0]
    assert combine([sure, unsure]).gain == pytest.approx((4 * 1e-4 + 1.01e-4) / 5)


def test_estimates_that_contradict_each_other_are_poor_with_a_larger_error():
    mean = combine(estimates([1e-4, 1.1e-4]))
    assert mean.verdict == "poor"
    assert "scatter" in mean.reason
    assert mean.gain_error == pytest.approx(5e-6)


def test_unusable_estimates_are_left_out():
    unusable = NoiseEstimate(np.nan, np.nan, np.nan, np.nan, verdict="unusable")
    assert combine([unusable, *estimates([GAIN])]).gain == GAIN
    assert combine([unusable]).verdict == "unusable"
    with pytest.raises(ValueError, match="nothing to combine"):
        combine([])


def test_of_single_images_the_grainy_ones_are_left_out_and_at_least_half_stay():
    kept = combine(estimates([1e-4, 1.01e-4, 0.99e-4, 3e-4, 9e-4]), scenes=True)
    assert kept.gain == pytest.approx(1e-4)
    assert kept.verdict == "good"
    torn = combine(estimates([1e-4, 2e-4, 3e-4, 4e-4]), scenes=True)
    assert torn.gain == pytest.approx(1.5e-4)
    assert torn.verdict == "poor"
