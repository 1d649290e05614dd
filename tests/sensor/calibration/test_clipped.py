import numpy as np
import pytest

from lowlight_kedro.sensor.calibration.estimate import Points
from lowlight_kedro.sensor.calibration.level_sets import block_side, find_quads, haar
from lowlight_kedro.sensor.calibration.line import Curve, clipped_moments, find_ceiling, find_floor, fit_line, poisson_moments, root
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from tests.conftest import PHASES

N = 400_000


def same(sample, mean, variance):
    """Moments within 5 standard errors of those of a sample."""
    squares = (sample - sample.mean()) ** 2
    return abs(sample.mean() - mean) < 5 * np.sqrt(variance / N) and abs(sample.var() - variance) < 5 * squares.std() / np.sqrt(N)


@pytest.mark.parametrize(
    ("mean", "floor", "ceiling"), [(0.0, 0, 1), (0.1, 0, 1), (0.9, -np.inf, 1), (0.5, 0.2, 0.7), (0.3, -np.inf, np.inf)]
)
def test_clipped_moments_are_those_of_a_clipped_sample(mean, floor, ceiling, rng):
    sample = np.clip(rng.normal(mean, 0.2, N), floor, ceiling)
    assert same(sample, *clipped_moments(np.array(mean), np.array(0.2), floor, ceiling))


@pytest.mark.parametrize("signal", [0.0, 0.5, 4.0])
def test_poisson_moments_are_those_of_a_clipped_sample(signal, rng):
    sample = np.maximum(rng.poisson(signal, N) + rng.normal(0, 0.8, N), 0)
    mean, variance = poisson_moments(np.array([signal]), 1.0, 0.8, 0.0)
    assert same(sample, mean[0], variance[0])


def test_unclipped_is_the_way_back():
    curve = Curve(0.01, 1e-4, floor=0.0, ceiling=1.0)
    signal = np.array([0.4, 0.6, 0.9, 1.0])
    mean, variance = clipped_moments(signal, np.sqrt(curve.gain * signal + curve.offset), 0.0, 1.0)
    found, expected, ratio = curve.unclipped(mean)
    np.testing.assert_allclose(found, signal, rtol=1e-3)
    np.testing.assert_allclose(expected * ratio, variance, rtol=5e-3)


def test_clips_are_found_where_they_are_and_only_there(rng):
    signal = np.rint(rng.normal(0.001, 0.002, (200, 200)) * 16000) / 16000
    assert find_floor(signal) == -np.inf
    assert find_floor(np.maximum(signal, 0)) == 0
    assert find_ceiling(signal, BAYER_RGGB) == np.inf
    bright = np.broadcast_to(np.linspace(0.2, 1.3, 200), (200, 200)) + signal
    assert find_ceiling(np.minimum(bright, 0.7), BAYER_RGGB) == 0.7


@pytest.mark.parametrize("cfa", [*PHASES, XTRANS], ids=str)
def test_quads_are_disjoint_of_one_colour_and_blind_to_gradients(cfa):
    side, quads = block_side(cfa), find_quads(cfa)
    sites = [(row % side, column % side) for quad in quads for row, column in quad.sites]
    assert len(set(sites)) == len(sites) == (16 if side == 4 else 32)
    for quad in quads:
        assert {cfa[row % len(cfa)][column % len(cfa)] for row, column in quad.sites} == {quad.channel}
        assert haar(*(np.array(3.0 * row - 2.0 * column + 7) for row, column in quad.sites))[3] == 0
    np.testing.assert_allclose(np.array(haar(*np.eye(4))) @ np.array(haar(*np.eye(4))).T, np.eye(4), atol=1e-12)


def test_the_line_ignores_what_lies_above_it_and_not_what_lies_below(rng):
    mean, error = np.linspace(0, 1, 40), np.full(40, 0.01)
    variance = 2 * mean + 0.5 + rng.normal(0, 0.01, 40)
    above, below = variance.copy(), variance.copy()
    above[::8] += 1
    below[::8] -= 1
    truth = fit_line(Points(mean, variance, error), 0)
    assert truth.gain == pytest.approx(2, abs=5 * truth.gain_error)
    assert fit_line(Points(mean, above, error), 0).gain == pytest.approx(truth.gain, abs=0.02)
    assert fit_line(Points(mean, below, error), 0).offset < truth.offset - 0.05


def test_fine_contrast_widens_the_error_until_the_points_are_straight_enough():
    mean = np.linspace(0, 1, 20)
    loose, tight = (Points(mean, mean + 0.1, np.full(20, error)) for error in (0.1, 1e-4))
    assert fit_line(loose, 0.3).gain_error > 1.2 * fit_line(loose, 0).gain_error
    assert fit_line(tight, 0.3).gain_error < 0.01


def test_the_root_of_a_variance_is_positive_and_its_error_the_derivative():
    read, error = root(4.0, 0.04)
    assert (read, error) == (pytest.approx(2, rel=1e-3), pytest.approx(0.01, rel=1e-2))
    read, error = root(-1.0, 1.0)
    assert 0 < read < 1
    assert error > 0.2
