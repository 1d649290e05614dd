"""Laws of every noise model, and of the parts of the camera's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest, tukeylambda

from lowlight_kedro.sensor.noise import NOISE_MODELS, CameraNoise, PoissonGaussian, tukey_sample, tukey_std

GAIN, READ = 1e-3, 4e-3
SIGNALS = (0.0, 0.003, 0.3)
MODELS = {
    "poisson_gaussian": PoissonGaussian(GAIN, READ),
    "camera, Gaussian": CameraNoise(GAIN, READ),
    "camera": CameraNoise(GAIN, READ, tail=-0.1, row_noise=2e-3, black_error=1e-3, step=2e-3, floor=-0.2),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
# Sony A7S II, PMN's process.py: ISO, standard deviation of the read noise, Tukey scale, lambda (DN)
A7S2 = [
    (100, 1.007, 0.702, 0.149), (200, 1.293, 0.812, 0.079), (400, 2.060, 1.182, 0.022), (800, 3.548, 1.935, -0.008),
    (1600, 6.299, 3.228, -0.044), (2000, 2.654, 1.436, -0.013), (3200, 3.919, 2.042, -0.035), (6400, 7.116, 3.450, -0.075),
    (12800, 14.246, 7.038, -0.065), (25600, 25.853, 12.176, -0.091),
]  # fmt: skip


def independent(signal, size=100_000):
    """Many frames of one photosite: nothing that a row or a channel shares correlates them."""
    return np.full((size, 1, 1), signal)


def agrees(model, reference, signal, rng):
    """Sample mean and variance of `model` within 5 standard errors of what `reference` says."""
    sample = model.sample(independent(signal), rng)
    variance, squares = float(reference.variance(np.asarray(signal))), (sample - sample.mean()) ** 2
    error = squares.std() / np.sqrt(sample.size)
    return abs(sample.mean() - signal) < 5 * np.sqrt(variance / sample.size) and abs(squares.mean() - variance) < 5 * error


def test_every_listed_model_is_tested():
    assert {type(model) for model in MODELS.values()} == set(NOISE_MODELS.values())


@pytest.mark.parametrize("signal", SIGNALS)
@every_model
def test_samples_have_the_mean_and_variance_that_the_model_tells(model, signal, rng):
    assert agrees(model, model, signal, rng)


@every_model
def test_the_law_above_notices_a_gain_that_is_wrong_by_ten_percent(model, rng):
    assert not agrees(replace(model, gain=GAIN * 1.1), model, 0.3, rng)


@every_model
def test_a_tensor_has_the_variance_of_an_array(model):
    signal = np.linspace(-0.1, 1.1, 50)
    np.testing.assert_allclose(model.variance(torch.from_numpy(signal)).numpy(), model.variance(signal), rtol=1e-12)


@every_model
def test_light_below_black_is_dark_and_keeps_its_offset(model, rng):
    assert model.variance(np.float64(-0.05)) == model.variance(np.float64(0))
    sample = model.sample(independent(-0.05), rng)
    assert sample.mean() == pytest.approx(-0.05, abs=5 * sample.std() / np.sqrt(sample.size))


@every_model
def test_the_signal_is_left_alone(model, rng):
    signal = np.linspace(0, 0.2, 8).reshape(2, 4)
    before = signal.copy()
    model.sample(signal, rng)
    np.testing.assert_array_equal(signal, before)


@pytest.mark.parametrize(("electrons", "read"), [(0.3, 0.2), (3.0, 0.2), (30.0, 1.5)])
@pytest.mark.parametrize("kind", NOISE_MODELS.values())
def test_photons_are_counted(kind, electrons, read, rng):
    """The sampled distribution is that of Poisson counts and Gaussian noise, not of a Gaussian with their variance."""
    sample = kind(1e-2, read * 1e-2).sample(independent(electrons * 1e-2, 20_000), rng).ravel() * 100
    twin = rng.poisson(electrons, 20_000) + rng.normal(0, read, 20_000)
    assert kstest(sample, twin).pvalue > 1e-6
    if electrons < 10:
        assert kstest(sample, rng.normal(electrons, np.sqrt(electrons + read**2), 20_000)).pvalue < 1e-6


@pytest.mark.parametrize("kind", NOISE_MODELS.values())
def test_a_noise_free_sensor_is_refused(kind):
    with pytest.raises(ValueError, match=r"got gain=0\.0, read_noise=0\.1"):
        kind(0.0, 0.1)


@pytest.mark.parametrize(("iso", "read", "scale", "shape"), A7S2)
def test_the_standard_deviation_of_published_tails_is_the_published_read_noise(iso, read, scale, shape):
    """Two independent fits to the same darks: 4 % at low ISO, 8 % where the tails are longest."""
    assert scale * tukey_std(shape) == pytest.approx(read, rel=0.08)


@pytest.mark.parametrize("shape", [0.3, 0.14, 0.0, 1e-9, -0.1, -0.2])
def test_tukey_draws_have_their_standard_deviation_and_distribution(shape, rng):
    draws = tukey_sample(shape, 2.0, (50_000,), rng)
    squares = draws**2
    assert squares.mean() == pytest.approx(4, abs=5 * squares.std() / np.sqrt(squares.size))
    assert kstest(draws[:5000] / 2 * tukey_std(shape), tukeylambda(shape).cdf).pvalue > 1e-6


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


@pytest.mark.parametrize(("wrong", "message"), [({"tail": -0.5}, "tail must be in"), ({"row_noise": -1.0}, "must not be negative")])
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CameraNoise(GAIN, READ, **wrong)
