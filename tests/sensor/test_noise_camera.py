"""The parts of the camera model: each is in the samples and in the likelihood."""

from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.noise import CameraNoise, tukey
from tests.sensor.test_noise import gains_by

GAIN, READ = 1e-3, 4e-3
# Sony A7S II, PMN's process.py: ISO, standard deviation of the read noise, Tukey scale, lambda (DN)
A7S2 = [
    (100, 1.007, 0.702, 0.149), (200, 1.293, 0.812, 0.079), (400, 2.060, 1.182, 0.022), (800, 3.548, 1.935, -0.008),
    (1600, 6.299, 3.228, -0.044), (2000, 2.654, 1.436, -0.013), (3200, 3.919, 2.042, -0.035), (6400, 7.116, 3.450, -0.075),
    (12800, 14.246, 7.038, -0.065), (25600, 25.853, 12.176, -0.091),
]  # fmt: skip
# What has the part, what has not, signals between. A density read off at whole DN only is fair if signals lie anywhere
# between two DN: hence the range under "step".
PARTS = {
    "tail": (CameraNoise(GAIN, READ, tail=-0.2), {"tail": None}, 0.0, 0.0),
    "row_noise": (CameraNoise(GAIN, READ, row_noise=READ), {"row_noise": 0.0}, 0.0, 0.0),
    "black_error": (CameraNoise(GAIN, READ, black_error=READ), {"black_error": 0.0}, 0.0, 0.0),
    "step": (CameraNoise(GAIN, READ, step=6 * READ), {"step": 0.0}, 0.05, 0.05 + 6 * READ),
    "white": (CameraNoise(GAIN, READ, step=READ), {"white": None}, 0.98, 0.98),
    "floor": (CameraNoise(GAIN, READ, step=READ, floor=-READ), {"floor": None}, 0.0, 0.0),
}


@pytest.mark.parametrize(("iso", "read", "scale", "shape"), A7S2)
def test_the_standard_deviation_of_published_tails_is_the_published_read_noise(iso, read, scale, shape):
    """Two independent fits to the same darks: 4 % at low ISO, 8 % where the tails are longest."""
    assert scale * tukey.standard_deviation(shape) == pytest.approx(read, rel=0.08)


@pytest.mark.parametrize("shape", [0.3, 0.14, 0.0, 1e-9, -0.1, -0.2])
def test_tukey_draws_have_their_standard_deviation_and_tails(shape, rng):
    draws = tukey.sample(shape, 2.0, (400_000,), rng)
    squares = draws**2
    assert squares.mean() == pytest.approx(4, abs=5 * squares.std() / np.sqrt(squares.size))
    t = np.array([0.3, 1.0, 2.0])
    waves = np.cos(np.multiply.outer(t, draws / 2))
    assert np.all(np.abs(waves.mean(axis=1) - tukey.characteristic(t, shape)) < 5 * waves.std(axis=1) / np.sqrt(draws.size))


@pytest.mark.parametrize(("model", "without", "low", "high"), PARTS.values(), ids=PARTS)
def test_a_camera_without_the_part_loses_on_data_that_have_it(model, without, low, high, rng):
    signal = rng.uniform(low, high, (20_000, 1, 1))
    observed = model.sample(signal, rng)
    assert gains_by(model, replace(model, **without), observed, signal) > 5


def test_row_noise_is_common_to_a_row_and_the_black_error_to_a_channel(rng):
    row, black = 3e-3, 2e-3
    model = CameraNoise(GAIN, 1e-3, row_noise=row, black_error=black)
    channels = np.tile([[0, 1], [1, 2]], (15, 20))
    sample = model.sample(np.zeros((2000, 30, 40)), rng, channels)
    rows = sample[:, ::2] - sample[:, ::2].mean(axis=1, keepdims=True)  # rows of one kind: without the black error
    product = rows[:, 0, 1] * rows[:, 0, 2]
    assert product.mean() == pytest.approx(row**2 * (1 - 1 / 15), abs=5 * product.std() / np.sqrt(2000))
    offsets = np.stack([sample[:, channels == channel].mean(axis=1) for channel in range(3)])
    own = (offsets[0] - offsets[2]) - (offsets[0] - offsets[2]).mean()  # red rows are not blue rows: 15 rows each
    expected = 2 * black**2 + 2 * row**2 / 15 + 2 * 1e-6 / 300
    assert own.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / 2000))
    assert np.corrcoef(sample[:, 0, 1], sample[:, 1, 0])[0, 1] == pytest.approx(
        black**2 / (black**2 + row**2 + 1e-6), abs=5 / np.sqrt(2000)
    )


def test_without_channels_all_photosites_share_one_black_error(rng):
    sample = CameraNoise(GAIN, 1e-6, black_error=1e-2).sample(np.zeros((6, 7)), rng)
    assert np.ptp(sample) < 2e-5
    assert abs(sample.mean()) > 1e-4


def test_values_are_digital_numbers_between_floor_and_white(rng):
    step = 1 / 1000
    model = CameraNoise(GAIN, 20 * step, tail=-0.1, step=step, floor=-10 * step)
    sample = model.sample(rng.uniform(0, 1.1, (300, 300)), rng) / step
    np.testing.assert_allclose(sample, np.rint(sample), atol=1e-9)
    assert (sample.min(), sample.max()) == (pytest.approx(-10), pytest.approx(1000))
    dark = model.sample(np.zeros((300, 300)), rng) / step
    assert dark.min() == pytest.approx(-10)


@pytest.mark.parametrize("step", [0.0, 2e-3])
def test_a_clipped_photosite_has_the_probability_of_all_values_beyond(step):
    """Above: 1 - what lies below; below the floor likewise. Their scores are the slopes."""
    model = CameraNoise(GAIN, READ, tail=-0.1, step=step, floor=-0.01)
    open_ended = replace(model, white=None, floor=None)
    signal, h, unit = np.array([0.9, 0.97, 1.0, 1.05]), 1e-6, step or 1.0
    y = np.linspace(0.3, 1 - step / 2, 20_001)
    below = np.trapezoid(np.exp(replace(open_ended, step=0.0).log_likelihood(y[:, None], signal)), y, axis=0)
    np.testing.assert_allclose(np.exp(model.log_likelihood(1.0, signal)) * unit, 1 - below, atol=2e-5)
    dark = np.array([0.0, 0.002, 0.01])
    y = np.linspace(-0.3, -0.01 + step / 2, 20_001)
    below = np.trapezoid(np.exp(replace(open_ended, step=0.0).log_likelihood(y[:, None], dark)), y, axis=0)
    np.testing.assert_allclose(np.exp(model.log_likelihood(-0.01, dark)) * unit, below, atol=2e-5)
    for observed, s in ((1.0, np.append(signal, 0.2)), (-0.01, np.append(dark[1:], 0.3))):
        slope = (model.log_likelihood(observed, s + h) - model.log_likelihood(observed, s - h)) / (2 * h)
        np.testing.assert_allclose(model.score(observed, s), slope, rtol=1e-4, atol=1e-3)


def test_a_long_tail_forgives_an_outlier():
    """At 8 standard deviations: a Gaussian score grows with the residual, a long-tailed one falls."""
    gaussian, tailed = CameraNoise(GAIN, READ, white=None), CameraNoise(GAIN, READ, tail=-0.2, white=None)
    assert tailed.log_likelihood(8 * READ, 0.0) > gaussian.log_likelihood(8 * READ, 0.0) + 10
    near, far = (abs(float(tailed.score(z * READ, -1e-9))) for z in (-3, -20))
    assert far < near


@pytest.mark.parametrize(("wrong", "message"), [({"tail": -0.5}, "tail must be in"), ({"row_noise": -1.0}, "must not be negative")])
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CameraNoise(GAIN, READ, **wrong)
