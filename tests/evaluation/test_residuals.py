"""What a restoration took away, against the noise model."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import uniform_filter

from lowlight_kedro.evaluation.protocols import recorded
from lowlight_kedro.evaluation.residuals import residuals, verdict
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.noise import PoissonGaussian

BALANCE, RATIO, NOISE = (2.0, 1.0, 1.5), 50.0, PoissonGaussian(2e-5, 2e-4)


def shot(rng, cfa, noise=NOISE, side=240):
    """Smooth light of 0.004 to 0.6 at the long exposure, and its short exposure."""
    ramp = 0.004 * 150 ** np.linspace(0, 1, side)
    light = np.broadcast_to(ramp, (3, side, side)) * np.array([1.0, 0.9, 0.8])[:, None, None]
    signal = recorded(light, cfa, BALANCE) / RATIO
    return noise.sample(signal, rng), light


def table(signal, light, cfa, noise=NOISE):
    return pd.DataFrame(list(residuals(signal, light, cfa, BALANCE, RATIO, noise)))


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_the_truth_leaves_white_noise_of_mean_square_one_and_no_bias(rng, cfa):
    found = table(*shot(rng, cfa), cfa)
    assert set(found["channel"]) == {"R", "G", "B"}
    assert (np.abs(found["mean_square"] - 1) < 6 * found["mean_square_error"]).all()  # photon noise has a little more kurtosis
    assert (np.abs(found["bias"]) < 5 * found["bias_error"]).all()
    assert (np.abs(found[["correlation", "correlation_2"]]) < 5 / np.sqrt(2 * found["sites"].to_numpy()[:, None])).all(axis=None)


def test_a_noise_model_ten_per_cent_wrong_is_seen(rng):
    signal, light = shot(rng, BAYER_RGGB)
    found = table(signal, light, BAYER_RGGB, PoissonGaussian(2.2e-5, 2.2e-4))
    assert (found["mean_square"] < 1 - 3 * found["mean_square_error"])[found["sites"] > 3000].all()


def test_kept_noise_lowers_the_mean_square_and_lost_detail_is_correlated(rng):
    signal, light = shot(rng, BAYER_RGGB)
    noise = signal - recorded(light, BAYER_RGGB, BALANCE) / RATIO
    kept = light + RATIO * 0.5 * noise * np.array(BALANCE)[:, None, None]
    found = table(signal, kept, BAYER_RGGB)
    assert found["mean_square"].max() < 0.4
    assert (np.abs(found["bias"]) < 5 * found["bias_error"]).all()  # of brightness: noise that was kept does not sort sites
    texture = uniform_filter(rng.normal(size=light.shape[1:]), 3) * 0.15 * light
    lost = table(signal + recorded(texture, BAYER_RGGB, BALANCE) / RATIO, light, BAYER_RGGB).query("low >= 0.1 and sites > 1000")
    assert (lost["correlation"] > 0.03).all()
    assert (lost["mean_square"] > 1.1).all()


def test_shadows_lifted_by_a_hundredth_of_white_show_as_bias(rng):
    signal, light = shot(rng, BAYER_RGGB)
    lifted = light + np.array([0.01, 0, 0])[:, None, None]
    found = table(signal, lifted, BAYER_RGGB).set_index("channel")
    dark = found[found["low"] == 0.03]
    assert dark.loc["R", "bias"] == pytest.approx(-0.01 / 2.0, abs=5 * dark.loc["R", "bias_error"])
    assert abs(dark.loc["G", "bias"]) < 5 * dark.loc["G", "bias_error"]


def test_saturated_sites_have_no_residual(rng):
    signal, light = shot(rng, BAYER_RGGB)
    signal[:, 120:] = 1.0
    found = table(signal, light, BAYER_RGGB)
    assert (np.abs(found["mean_square"] - 1) < 6 * found["mean_square_error"]).all()
    assert found["high"].max() < 1


def test_defects_of_the_sensor_do_not_count_and_lost_stars_do(rng):
    signal, light = shot(rng, BAYER_RGGB)
    hot = signal + 0.02 * (rng.uniform(size=signal.shape) < 1e-3)
    found = table(hot, light, BAYER_RGGB)
    assert (np.abs(found["mean_square"] - 1) < 6 * found["mean_square_error"]).all()
    stars = signal + 0.02 * (uniform_filter((rng.uniform(size=signal.shape) < 1e-3).astype(float), 3) > 0)
    assert table(stars, light, BAYER_RGGB)["mean_square"].median() > 10


def test_the_verdict_names_lost_detail_and_noise_told_wrong_and_no_kept_noise():
    assert verdict(1.0, 0.0) == verdict(0.4, -0.1) == "good"
    assert "more than the noise" in verdict(1.5, 0.0)
    assert "smooth" in verdict(0.9, 0.3)
    assert "less noise than told" in verdict(0.2, 0.0, 0.4)
    assert verdict(0.4, 0.0, 0.4) == "good"
    assert verdict(float("nan"), float("nan")) == "not measured"
