"""The black level that a dark frame tells: as it is where it is wrong, and none where the frame does not tell it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lowlight_kedro.restoration.black import by_darkness, estimate
from lowlight_kedro.restoration.loudness import blocks_of, of_blocks
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from lowlight_kedro.sensor.noise import PoissonGaussian

SIDE, GAINS, ZERO = 192, torch.tensor([2.0, 1.0, 1.6], dtype=torch.float64).reshape(1, 3, 1, 1), -1.0
NOISE = PoissonGaussian(gain=0.25, read_noise=1.0)  # the signal's unit is the noise without light
BRIGHT = np.linspace(-2, 6, SIDE).clip(min=0)[:, None] * np.ones((3, 1, SIDE))  # a black quarter, and ever more light
CFAS = pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])


def blocks(black=0.0, light=BRIGHT, seed=0, cfa=BAYER_RGGB, added=0.0):
    """Those of a frame whose prior knows its light exactly and takes its black level for light; `added`: noise that nobody knows of."""
    rng, mask, black = np.random.default_rng(seed), masks(cfa, light.shape[1:]), np.reshape(black, (-1, 1, 1))
    signal = NOISE.sample((light * mask).sum(axis=0), rng) + added * rng.standard_normal(light.shape[1:])
    y, d = (torch.from_numpy(part + black)[None] * GAINS + ZERO for part in (signal, light))
    whole = torch.from_numpy(mask)[None]
    return blocks_of(Measurement(whole * y, whole, torch.ones_like(y)), d, torch.zeros_like(y), GAINS, ZERO, len(cfa))


@CFAS
@pytest.mark.parametrize("black", [(0.4, 0.5, 0.6), (-0.5, -0.6, -0.5)])
def test_a_wrong_black_level_is_found_channel_by_channel(cfa, black):
    """One that is too low by how loud the noise is, one that is too high because no light is negative."""
    for seed in range(3):
        found = estimate(blocks(black, seed=seed, cfa=cfa), NOISE, known=0.01)
        np.testing.assert_allclose(found, black, atol=0.2)


@CFAS
def test_nothing_is_moved_where_the_header_is_right_or_the_frame_does_not_tell(cfa):
    for seed in range(6):
        assert estimate(blocks(seed=seed, cfa=cfa), NOISE, known=0.01) is None
    wrong = blocks(0.4, cfa=cfa)
    assert estimate(wrong, NOISE, known=0.01) is not None
    assert estimate(wrong, NOISE, known=0.2) is None  # nobody knows the noise that well
    assert estimate(blocks(0.4, cfa=cfa, added=0.4), NOISE, known=0.01) is None  # texture hides it
    assert estimate(blocks(light=BRIGHT + 20, cfa=cfa), NOISE, known=0.01) is None  # haze is no black level
    assert estimate(blocks(light=BRIGHT + 1, cfa=cfa), NOISE, known=0.1) is None
    assert estimate(blocks(0.4, BRIGHT[:, :48, :48], cfa=cfa), NOISE, known=0.01) is None  # too small


def test_more_noise_than_is_known_never_makes_a_frame_brighter():
    """Texture and hot sites add to the noise: by loudness black would lie below the header's, and shadows would turn grey."""
    assert estimate(blocks(light=BRIGHT + 2, added=0.6), NOISE, known=0.01) is None


@CFAS
def test_loudness_and_darkness_err_as_they_say(cfa):
    """Standard errors; the first is widened by a fact about learned priors, which an exact one does not need."""
    loud, dark = [], []
    for seed in range(12):
        sums = blocks(0.5, seed=seed, cfa=cfa)
        b, error, _ = of_blocks(sums, NOISE)
        level, spread = by_darkness(sums, NOISE)
        loud.append((b - 0.5) / error)
        dark.append((level - 0.5) / spread)
    assert 0.5 < np.sqrt(np.mean(np.square(loud))) < 1.1
    assert abs(np.mean(loud)) < 0.5
    assert 0.5 < np.std(dark) < 1.3
    assert -0.5 < np.mean(dark) < 1.0  # noise makes no place darker; the one chosen is not always the darkest


def test_a_frame_without_photons_tells_nothing():
    assert estimate(blocks(0.5), replace(NOISE, gain=1e-30), known=0.01) is None
