import numpy as np
import pytest

from lowlight_kedro.sensor.noise import NOISE_MODELS, PoissonGaussian, RowNoise

GAIN, READ = 1e-3, 4e-3
SIGNALS = (0.0, 0.02, 0.3)
MODELS = {
    "poisson_gaussian": PoissonGaussian(GAIN, READ),
    "row_noise": RowNoise(GAIN, READ, row_noise=2e-3),
}


def test_every_listed_model_is_tested():
    assert MODELS.keys() == NOISE_MODELS.keys()


def agrees(model, reference, signal, rng, rows=4000, columns=50):
    """Sample mean and variance of `model` within 5 standard errors of what `reference` says."""
    sample = model.sample(np.full((rows, columns), signal), rng)
    per_row = getattr(model, "row_noise", 0) ** 2
    variance = reference.variance(np.asarray(signal))
    mean_error = np.sqrt(variance / sample.size + per_row / rows)
    # kurtosis of a Poisson with few counts is large; its excess is gain / variance * gain ** 2 * signal / gain
    excess = reference.gain**3 * signal / variance**2
    variance_error = variance * np.sqrt((2 + excess) / sample.size + 2 * (per_row / variance) ** 2 / rows)
    return abs(sample.mean() - signal) < 5 * mean_error and abs(sample.var() - variance) < 5 * variance_error


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("name", MODELS)
def test_samples_have_the_mean_and_variance_that_the_model_tells(name, signal, rng):
    assert agrees(MODELS[name], MODELS[name], signal, rng)


def test_the_law_above_notices_a_gain_that_is_wrong_by_ten_percent(rng):
    assert not agrees(PoissonGaussian(GAIN * 1.1, READ), PoissonGaussian(GAIN, READ), 0.3, rng)


def test_row_noise_is_common_to_a_row(rng):
    sample = MODELS["row_noise"].sample(np.zeros((3000, 100)), rng)
    expected = 2e-3**2 + READ**2 / 100
    assert sample.mean(axis=1).var() == pytest.approx(expected, rel=5 * np.sqrt(2 / 3000))


@pytest.mark.parametrize("name", MODELS)
def test_score_is_the_derivative_of_the_log_likelihood(name, rng):
    model, signal = MODELS[name], rng.uniform(0.01, 0.5, 100)
    observed, h = model.sample(signal[None], rng)[0], 1e-6
    slope = (model.log_likelihood(observed, signal + h) - model.log_likelihood(observed, signal - h)) / (2 * h)
    np.testing.assert_allclose(model.score(observed, signal), slope, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_score_at_the_truth_is_zero(name, rng):
    signal = np.full((2000, 50), 0.1)
    scores = MODELS[name].score(MODELS[name].sample(signal, rng), signal).mean(axis=1)
    assert abs(scores.mean()) < 5 * scores.std() / np.sqrt(len(scores))


@pytest.mark.parametrize("name", MODELS)
def test_black_and_negative_pixels_have_finite_scores(name):
    observed, signal = np.array([-0.01, 0.0, 0.0]), np.array([0.0, 0.0, -0.5])
    assert np.isfinite(MODELS[name].score(observed, signal)).all()


def test_a_noise_free_sensor_is_refused():
    with pytest.raises(ValueError, match=r"got gain=0\.0, read_noise=0\.1"):
        PoissonGaussian(0.0, 0.1)
