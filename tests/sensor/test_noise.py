"""Laws of every noise model; `test_noise_exact.py` has those of the densities, `test_noise_camera.py` those of the camera's parts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lowlight_kedro.sensor.noise import NOISE_MODELS, CameraNoise, PoissonGaussian

GAIN, READ = 1e-3, 4e-3
SIGNALS = (0.0, 0.003, 0.3)
MODELS = {
    "poisson_gaussian": PoissonGaussian(GAIN, READ),
    "poisson_gaussian, exact": PoissonGaussian(GAIN, READ, exact=True),
    "camera, Gaussian": CameraNoise(GAIN, READ),
    "camera": CameraNoise(GAIN, READ, tail=-0.1, row_noise=2e-3, black_error=1e-3, step=2e-3, floor=-0.2),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def independent(signal, size=100_000):
    """Many frames of one photosite: nothing that a row or a channel shares correlates them."""
    return np.full((size, 1, 1), signal)


def agrees(model, reference, signal, rng):
    """Sample mean and variance of `model` within 5 standard errors of what `reference` says."""
    sample = model.sample(independent(signal), rng)
    variance, squares = float(reference.variance(np.asarray(signal))), (sample - sample.mean()) ** 2
    error = squares.std() / np.sqrt(sample.size)
    return abs(sample.mean() - signal) < 5 * np.sqrt(variance / sample.size) and abs(squares.mean() - variance) < 5 * error


def gains_by(model, twin, observed, signal):
    """How many standard errors `model` is ahead of `twin` in mean log-likelihood."""
    lead = model.log_likelihood(observed, signal) - twin.log_likelihood(observed, signal)
    return lead.mean() / (lead.std() / np.sqrt(lead.size))


def test_every_listed_model_is_tested():
    assert {type(model) for model in MODELS.values()} == set(NOISE_MODELS.values())


@pytest.mark.parametrize("signal", SIGNALS)
@every_model
def test_samples_have_the_mean_and_variance_that_the_model_tells(model, signal, rng):
    assert agrees(model, model, signal, rng)


@every_model
def test_the_law_above_notices_a_gain_that_is_wrong_by_ten_percent(model, rng):
    assert not agrees(replace(model, gain=GAIN * 1.1), model, 0.3, rng)


@pytest.mark.parametrize(("signal", "wrong"), [(0.3, {"gain": GAIN * 1.1}), (0.0, {"read_noise": READ * 1.2})])
@every_model
def test_wrong_numbers_are_less_likely_than_the_true_ones(model, signal, wrong, rng):
    signal = independent(signal, 60_000)
    assert gains_by(model, replace(model, **wrong), model.sample(signal, rng), signal) > 5


@every_model
def test_a_tensor_has_the_variance_of_an_array(model):
    signal = np.linspace(-0.1, 1.1, 50)
    np.testing.assert_allclose(model.variance(torch.from_numpy(signal)).numpy(), model.variance(signal), rtol=1e-12)


@every_model
def test_score_is_the_derivative_of_the_log_likelihood(model, rng):
    signal = np.concatenate([rng.uniform(1e-4, 0.02, 300), rng.uniform(0.02, 0.5, 300), [-0.01, -0.003]])
    observed, h = model.sample(signal[:, None, None], rng).ravel(), 1e-6
    slope = (model.log_likelihood(observed, signal + h) - model.log_likelihood(observed, signal - h)) / (2 * h)
    np.testing.assert_allclose(model.score(observed, signal), slope, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "signal"),  # the Gaussian form is not the likelihood of a few electrons
    [(name, signal) for name in MODELS for signal in (0.001, 0.1) if (name, signal) != ("poisson_gaussian", 0.001)],
)
def test_the_mean_score_at_the_truth_is_zero(name, signal, rng):
    model, signal = MODELS[name], independent(signal, 40_000)
    scores = model.score(model.sample(signal, rng), signal)
    assert abs(scores.mean()) < 5 * scores.std() / np.sqrt(scores.size)


@every_model
def test_black_negative_and_absurd_pixels_have_finite_values(model):
    observed, signal = (grid.ravel() for grid in np.meshgrid([-5, -0.01, 0, 0.02, 1, 1.5, 40], [-0.5, 0, 1e-300, 1e-9, 0.5, 1, 3]))
    assert np.isfinite(model.log_likelihood(observed, signal)).all()
    assert np.isfinite(model.score(observed, signal)).all()


@every_model
def test_arguments_are_broadcast_and_left_alone(model, rng):
    observed, signal = rng.normal(0.1, 0.01, (5, 1)), np.linspace(0, 0.2, 4)
    before = observed.copy(), signal.copy()
    for function in (model.log_likelihood, model.score):
        whole = function(observed, signal)
        assert whole.shape == (5, 4)
        assert whole[2, 3] == pytest.approx(float(function(observed[2], signal[3:])[0]), rel=1e-12)
    model.sample(np.tile(signal, (2, 1)), rng)
    np.testing.assert_array_equal(observed, before[0])
    np.testing.assert_array_equal(signal, before[1])


@pytest.mark.parametrize("kind", NOISE_MODELS.values())
def test_a_noise_free_sensor_is_refused(kind):
    with pytest.raises(ValueError, match=r"got gain=0\.0, read_noise=0\.1"):
        kind(0.0, 0.1)
