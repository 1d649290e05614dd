"""Saturation in simulated mosaics of which the truth is known."""

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from lowlight_kedro.sensor.levels import measured_white, saturation

SHAPE, BLACK, TAG = (300, 402), 512, 16383.0


def mosaic(rng, light, clip=65535):
    """Photon (5 electrons a DN) and read noise on `light` (units of tag - black), clipped at `clip` DN."""
    electrons = np.maximum(np.broadcast_to(light, SHAPE), 0) * (TAG - BLACK) * 5
    dn = rng.poisson(electrons) / 5 + rng.normal(0, 3, SHAPE) + BLACK
    return np.clip(np.rint(dn), 0, clip).astype(np.uint16)


@pytest.fixture
def scene(rng):
    """Light of a scene with a few lamps: two in a hundred photosites above saturation."""
    light = rng.gamma(1.0, 0.12, SHAPE)
    light[rng.random(SHAPE) < 0.02] = 3.0
    return light


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
@pytest.mark.parametrize("clip", [15800, 15360, 12000])
def test_a_sensor_that_clips_below_its_tag_is_measured(cfa, clip, scene, rng):
    dn = mosaic(rng, scene, clip)
    assert measured_white(dn, cfa, TAG) == (clip, "measured")
    np.testing.assert_array_equal(saturation(dn, cfa, TAG), [clip] * 3)


def test_a_sensor_that_clips_above_its_tag_is_measured(scene, rng):
    assert measured_white(mosaic(rng, scene, 17000), BAYER_RGGB, TAG) == (17000, "measured")


def test_a_sensor_that_clips_at_its_tag_has_a_right_tag(scene, rng):
    assert measured_white(mosaic(rng, scene, 16383), BAYER_RGGB, TAG) == (TAG, "tag")


def test_a_flat_overexposure_is_measured(rng):
    assert measured_white(mosaic(rng, 2.0, 15800), BAYER_RGGB, TAG) == (15800, "measured")


def test_each_channel_has_its_own_and_the_lowest_counts(scene, rng):
    dn = mosaic(rng, scene)
    clips = np.array([16100, 15000, 15500])
    dn = np.minimum(dn, (masks(BAYER_RGGB, SHAPE) * clips[:, None, None]).sum(axis=0)).astype(np.uint16)
    np.testing.assert_array_equal(saturation(dn, BAYER_RGGB, TAG), clips)
    assert measured_white(dn, BAYER_RGGB, TAG) == (15000, "measured")


def test_glitches_above_saturation_do_not_hide_it(scene, rng):
    dn = mosaic(rng, scene, 15800)
    dn.flat[rng.choice(dn.size, 15, replace=False)] = 16383
    assert measured_white(dn, BAYER_RGGB, TAG) == (15800, "measured")


NO_PILE_UP = {
    "dark frame": lambda rng: mosaic(rng, 0.0),
    "dark scene": lambda rng: mosaic(rng, rng.gamma(1.0, 0.01, SHAPE)),
    "bright wall": lambda rng: mosaic(rng, 0.85),
    "gradient that ends": lambda rng: mosaic(rng, np.linspace(0, 0.9, SHAPE[1])),
    "smooth tail": lambda rng: mosaic(rng, np.minimum(rng.gamma(2.0, 0.08, SHAPE), 0.97)),
    "one bright window": lambda rng: mosaic(rng, np.where(np.arange(SHAPE[1]) > 390, 0.9, 0.1)),
    "hot photosites": lambda rng: np.where(rng.random(SHAPE) < 1e-4, 15000, mosaic(rng, 0.01)).astype(np.uint16),
    "coarse tone curve": lambda rng: (mosaic(rng, rng.gamma(2.0, 0.08, SHAPE), 16000) // 32 * 32).astype(np.uint16),
    "coarse ramp that ends": lambda rng: np.broadcast_to(np.linspace(600, 15000, SHAPE[1]) // 32 * 32, SHAPE).astype(np.uint16),
    "quiet dark frame": lambda rng: np.rint(rng.normal(512, 0.5, SHAPE)).astype(np.uint16),
    "black": lambda rng: np.zeros(SHAPE, np.uint16),
}


@pytest.mark.parametrize("name", NO_PILE_UP)
@pytest.mark.parametrize("seed", range(3))
def test_the_maximum_of_an_ordinary_image_is_no_saturation(name, seed):
    dn = NO_PILE_UP[name](np.random.default_rng(seed))
    assert measured_white(dn, BAYER_RGGB, TAG) == (TAG, "tag")
