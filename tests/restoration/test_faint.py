"""What is taken out as too faint to be detail, and what is not."""

import numpy as np
import pytest

from lowlight_kedro.restoration import faint as module
from lowlight_kedro.restoration.faint import FAINT, FAINT_LATTICE, without_faint_detail

STD = 0.01
ROWS, COLUMNS = (axis[None] for axis in np.indices((90, 70)))
CARRIERS = {"rows": (-1.0) ** ROWS, "columns": (-1.0) ** COLUMNS, "both": (-1.0) ** (ROWS + COLUMNS)}
GRADIENT = 0.02 + 4e-4 * ROWS + 2e-4 * COLUMNS
NOISE = np.random.default_rng(0).standard_normal((3, 90, 70))


def cleaned(light, std=STD):
    light = light.astype(np.float32)
    return without_faint_detail(light, np.full_like(light, std))


@pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS)
def test_a_faint_lattice_goes_and_a_strong_one_stays(carrier):
    faint, strong = (times * FAINT_LATTICE * STD * carrier for times in (0.4, 8))
    assert np.abs(cleaned(GRADIENT + faint) - GRADIENT).max() < 0.05 * np.abs(faint).max()
    np.testing.assert_allclose(cleaned(GRADIENT + strong), GRADIENT + strong, atol=0.01 * np.abs(strong).max())


def test_a_lattice_is_followed_where_it_grows_to_the_edges_of_any_frame():
    lattice = 0.3 * FAINT_LATTICE * STD * CARRIERS["rows"] * (1 + COLUMNS / 70)
    for height, width in ((90, 70), (37, 29), (9, 8)):
        light, truth = (GRADIENT + lattice)[:, :height, :width], GRADIENT[:, :height, :width]
        before, after = (np.abs(x - truth).mean() for x in (light, cleaned(light)))
        assert after < 0.2 * before
    tiny = (GRADIENT + lattice)[:, :7, :70].astype(np.float32)
    np.testing.assert_array_equal(cleaned(tiny), tiny)


def test_irregular_detail_goes_where_it_is_faint_and_stays_where_it_is_strong():
    faint, strong = (times * FAINT * STD * NOISE for times in (0.3, 40))
    assert (cleaned(GRADIENT + faint) - GRADIENT).std() < 0.6 * faint.std()  # coarser detail stays
    assert (cleaned(GRADIENT + strong) - GRADIENT - strong).std() < 0.01 * strong.std()


def test_gradients_and_edges_stay():
    np.testing.assert_allclose(cleaned(GRADIENT), GRADIENT, atol=2e-7)
    edges = GRADIENT + 0.3 * (ROWS > 41) + 0.2 * (COLUMNS > 30)
    np.testing.assert_allclose(cleaned(edges), edges, atol=0.02 * STD)


def test_brightness_stays_and_the_scale_of_light_does_not_count():
    light = GRADIENT + FAINT * STD * NOISE
    assert cleaned(light).mean() == pytest.approx(light.mean(), rel=1e-4)
    np.testing.assert_allclose(cleaned(8 * light, 8 * STD), 8 * cleaned(light), rtol=1e-5)


def test_channels_do_not_mix():
    light = GRADIENT + FAINT * STD * NOISE
    np.testing.assert_array_equal(cleaned(light), np.concatenate([cleaned(channel[None]) for channel in light]))


@pytest.mark.parametrize("height", [257, 320, 389])
def test_some_rows_at_a_time_are_the_whole(height, monkeypatch, rng):
    light = (0.1 + 0.2 * FAINT * STD * rng.standard_normal((3, height, 40)) + STD * (rng.random((3, height, 40)) > 0.99)).astype(np.float32)
    whole = cleaned(light)
    monkeypatch.setattr(module, "ROWS", 128)
    np.testing.assert_allclose(cleaned(light), whole, atol=1e-4 * STD)
    assert np.abs(whole - light).max() > 0.01 * STD
