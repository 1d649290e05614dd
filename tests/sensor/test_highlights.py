"""Next to blown green photosites colours that nobody measured fade to neutral."""

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, XTRANS, masks
from lowlight_kedro.sensor.highlights import faded, unknown_colour


def sky(cfa, side=48):
    """The signal of a blown sky with a dark bar of 12 columns."""
    signal = np.ones((side, side), np.float32)
    signal[:, 18:30] = 0.1
    return signal, cfa


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_magenta_before_a_blown_sky_becomes_neutral(cfa):
    light = np.full((3, 48, 48), 1.0, np.float32)
    light[1, :, 17:19] = 0.4
    shown = faded(light, *sky(cfa))
    np.testing.assert_allclose(shown[[0, 2], :, 17:19], 0.4, atol=1e-6)
    np.testing.assert_array_equal(shown[1], light[1])


def test_away_from_blown_sites_nothing_changes(rng):
    light = rng.random((3, 48, 48), dtype=np.float32)
    shown = faded(light, *sky(BAYER_RGGB))
    np.testing.assert_array_equal(shown[:, :, 22:26], light[:, :, 22:26])
    signal = np.full((48, 48), 0.98, np.float32)
    assert faded(light, signal, BAYER_RGGB) is light


def test_of_three_values_a_pixel_green_alone_tells_what_is_blown():
    light = np.full((3, 48, 48), 1.0, np.float32)
    light[1, :, 17:19] = 0.4
    signal = np.stack([np.full((48, 48), 0.2, np.float32), sky(BAYER_RGGB)[0], np.full((48, 48), 1.0, np.float32)])
    np.testing.assert_allclose(faded(light, signal, UNFILTERED)[[0, 2], :, 17:19], 0.4, atol=1e-6)
    assert faded(light, np.roll(signal, 1, 0), UNFILTERED) is light


@pytest.mark.parametrize("channel", [0, 2])
def test_a_lamp_keeps_its_colour(channel):
    """One channel alone exceeds green; and where green sites are not blown, whatever the others do."""
    light = np.full((3, 48, 48), 0.3, np.float32)
    light[channel] = 1.0
    np.testing.assert_allclose(faded(light, np.ones((48, 48), np.float32), BAYER_RGGB), light)
    pink = np.where(masks(BAYER_RGGB, (48, 48))[1], 0.3, 1).astype(np.float32)
    light[2 - channel] = 0.9
    assert faded(light, pink, BAYER_RGGB) is light


def test_what_changes_changes_gradually(rng):
    """Green just below the nearer channel and just above it: no jump."""
    signal, cfa = sky(BAYER_RGGB)
    shown = []
    for green in (0.699, 0.701):
        light = np.empty((3, 48, 48), np.float32)
        light[:] = np.array([1.0, green, 0.7])[:, None, None]
        shown.append(faded(light, signal, cfa))
    assert np.abs(shown[0] - shown[1]).max() < 0.01
    unknown = unknown_colour(signal, cfa)
    assert unknown.min() == 0
    assert unknown.max() == 1
    assert np.abs(np.diff(unknown, axis=1)).max() < 0.7
