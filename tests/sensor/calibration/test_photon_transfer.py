from dataclasses import replace

import numpy as np
import pytest
from scipy.special import tklmbda

from lowlight_kedro.sensor.calibration.darks import cumulative, tail_shape
from lowlight_kedro.sensor.calibration.photon_transfer import photon_transfer
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS

from .simulation import SPAN, Sensor, covers, darks, flats

SENSOR = Sensor()
CFAS = {"bayer": BAYER_RGGB, "xtrans": XTRANS}


def calibrate(sensor, cfa, rng, **more):
    return photon_transfer(flats(sensor, cfa, rng, **more), darks(sensor, rng), cfa)


def holds(value, error, truth, reach=5.0):
    return abs(value - truth) <= reach * error


@pytest.mark.parametrize("cfa", CFAS)
def test_flats_and_darks_give_everything_back(cfa, rng):
    sensor = replace(SENSOR, black=3.0, tail=-0.044, prnu=0.01)
    estimate = calibrate(sensor, CFAS[cfa], rng)
    assert estimate.verdict == "good"
    assert estimate.gain == pytest.approx(sensor.gain, rel=0.02)
    assert estimate.read_noise == pytest.approx(sensor.read_noise, rel=0.01)
    assert holds(estimate.gain, estimate.gain_error, sensor.gain)
    assert holds(estimate.read_noise, estimate.read_noise_error, sensor.read_noise)
    assert holds(estimate.row_noise, estimate.row_noise_error, sensor.row / SPAN)
    assert holds(estimate.tail, estimate.tail_error, sensor.tail)
    assert not holds(estimate.tail, estimate.tail_error, 0.135)
    for black, error in zip(estimate.black_error, estimate.black_error_error, strict=True):
        assert holds(black, error, 3 / SPAN)
        assert not holds(black, error, 0)


@pytest.mark.parametrize("with_darks", [True, False])
def test_two_standard_errors_hold_the_truth_nine_times_of_ten(with_darks):
    shape, found = (72, 72), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        frames = flats(SENSOR, BAYER_RGGB, rng, shape, levels=(0.01, 0.1, 0.4))
        found.append(photon_transfer(frames, darks(SENSOR, rng, shape, 2) if with_darks else [], BAYER_RGGB, tails=False))
    for name, truth in (("gain", SENSOR.gain), ("read_noise", SENSOR.read_noise)):
        values, errors = [getattr(e, name) for e in found], [getattr(e, f"{name}_error") for e in found]
        assert covers(values, errors, truth) >= 0.9
        assert np.median(errors) < 1.6 * np.std(values)


def test_a_gain_or_read_noise_wrong_by_ten_percent_is_outside_the_interval(rng):
    estimate = calibrate(SENSOR, BAYER_RGGB, rng)
    assert not holds(estimate.gain, estimate.gain_error, 1.1 * SENSOR.gain)
    assert not holds(estimate.read_noise, estimate.read_noise_error, 1.1 * SENSOR.read_noise)


def test_one_percent_of_hot_photosites_changes_nothing(rng):
    estimate = calibrate(replace(SENSOR, hot=0.01), BAYER_RGGB, rng)
    assert estimate.gain == pytest.approx(SENSOR.gain, rel=0.02)
    assert estimate.read_noise == pytest.approx(SENSOR.read_noise, rel=0.02)
    assert estimate.black_error[1] == pytest.approx(0, abs=0.3 / SPAN)


def test_a_saturated_level_changes_nothing(rng):
    estimate = calibrate(SENSOR, BAYER_RGGB, rng, levels=(0.01, 0.1, 0.3, 0.7, 1.0, 1.3))
    assert holds(estimate.gain, estimate.gain_error, SENSOR.gain)


def test_read_noise_is_not_taken_for_row_noise(rng):
    estimate = photon_transfer([], darks(replace(SENSOR, row=0.0), rng), BAYER_RGGB, tails=False)
    assert holds(estimate.row_noise, estimate.row_noise_error, 0.0, reach=8)  # near 0 this is 4 errors of the variance


def test_more_frames_per_level_shrink_the_error(rng):
    two, six = (calibrate(SENSOR, BAYER_RGGB, rng, frames=frames) for frames in (2, 6))
    assert six.gain_error == pytest.approx(two.gain_error / np.sqrt(5), rel=0.3)


def test_one_dark_is_enough_but_says_so(rng):
    estimate = photon_transfer(flats(SENSOR, BAYER_RGGB, rng), darks(SENSOR, rng, frames=1), BAYER_RGGB)
    assert "one dark" in estimate.reason
    assert holds(estimate.row_noise, estimate.row_noise_error, SENSOR.row / SPAN)
    assert holds(estimate.read_noise, estimate.read_noise_error, SENSOR.read_noise)


def test_without_flats_the_gain_is_unknown_and_the_read_noise_is_not(rng):
    estimate = photon_transfer([], darks(SENSOR, rng), BAYER_RGGB)
    assert estimate.verdict == "unusable"
    assert "no flats" in estimate.reason
    assert np.isnan(estimate.gain)
    assert holds(estimate.read_noise, estimate.read_noise_error, SENSOR.read_noise)


def test_darks_and_dark_flats_that_are_cut_off_at_black_are_left_out(rng):
    cut = lambda frames: [np.maximum(frame, 0) for frame in frames]  # noqa: E731
    levels = [cut(level) for level in flats(SENSOR, BAYER_RGGB, rng, levels=(0.0, 0.001, 0.01, 0.03, 0.1, 0.3))]
    estimate = photon_transfer(levels, cut(darks(SENSOR, rng)), BAYER_RGGB)
    assert estimate.black_error is None
    assert "cut off at black" in estimate.reason
    assert holds(estimate.gain, estimate.gain_error, SENSOR.gain)
    assert holds(estimate.read_noise, estimate.read_noise_error, SENSOR.read_noise)


def test_raws_that_are_not_linear_are_poor(rng):
    bent = [[frame + 0.5 * frame**2 for frame in level] for level in flats(SENSOR, BAYER_RGGB, rng, levels=(0.01, 0.1, 0.2, 0.3, 0.4))]
    estimate = photon_transfer(bent, darks(SENSOR, rng), BAYER_RGGB)
    assert estimate.verdict == "poor"
    assert "no line" in estimate.reason


def test_a_single_flat_per_level_and_nothing_at_all_are_refused(rng):
    with pytest.raises(ValueError, match="at least 2 frames of the same light, level 1 has 1"):
        photon_transfer([[np.zeros((48, 48))]], [], BAYER_RGGB)
    with pytest.raises(ValueError, match="nothing to calibrate from"):
        photon_transfer([], [], BAYER_RGGB)


@pytest.mark.parametrize("shape", [-0.1, 0.14])
def test_the_distribution_of_a_difference_is_that_of_differences(shape, rng):
    p = rng.uniform(1e-12, 1 - 1e-12, (2, 10**6))
    a, b = (p**shape - (1 - p) ** shape) / shape
    edges = np.array([-6.0, -2, -0.5, 0, 1, 4])
    fraction = (((a - b) / np.sqrt(2))[:, None] < edges).mean(axis=0)
    bound = 5 * np.sqrt(0.25 / 10**6)
    np.testing.assert_allclose(fraction, cumulative(edges, shape, 1.0, True), atol=bound)
    if shape == -0.1:
        assert np.abs(fraction - tklmbda(edges, shape)).max() > bound


def test_rounding_that_hides_the_tails_is_noticed(rng):
    assert tail_shape(np.rint(rng.normal(0, 0.7, 10**5)), of_contrast=False) is None
