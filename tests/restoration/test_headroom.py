"""Frames brighter than a prior has seen."""

import numpy as np
import pytest

from lowlight_kedro.restoration.headroom import headroom
from lowlight_kedro.restoration.restore import Exposure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.noise import PoissonGaussian

BALANCE = (2.0, 1.0, 1.5)


def exposure(cfa, light, ratio=10.0, noise=None, shape=(240, 312)):
    """Balanced light (3,) at the long exposure, as a short one records it; `light` fills the frame but a dark stripe."""
    scene = np.broadcast_to(np.reshape(light, (3, 1, 1)) / np.reshape(BALANCE, (3, 1, 1)) / ratio, (3, *shape)).copy()
    scene[:, :, : shape[1] // 4] *= 0.01
    signal = sample(scene, cfa).astype(np.float32)
    if noise is not None:
        signal = noise.sample(signal, np.random.default_rng(0)).astype(np.float32)
    return Exposure(signal, cfa, BALANCE, ratio, PoissonGaussian(1e-4, 1e-3))


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
@pytest.mark.parametrize(("light", "expected"), [((0.3, 0.5, 0.9), 1.0), ((0.3, 0.5, 1.7), 1.7), ((3.0, 2.0, 1.0), 3.0)])
def test_the_brightest_channel_comes_down_to_white(cfa, light, expected):
    assert headroom(exposure(cfa, light), 0.01) == pytest.approx(expected, rel=1e-4)
    assert headroom(exposure(cfa, light), 0.01, white=0.1) == pytest.approx(10 * max(light), rel=1e-4)


def test_noise_is_not_taken_for_light():
    """A noise of the size of white moves the answer by a few per cent."""
    loud = PoissonGaussian(1e-4, 0.05)
    assert headroom(exposure(BAYER_RGGB, (0.4, 0.8, 0.4), noise=loud), 0.01) < 1.35
    assert headroom(exposure(BAYER_RGGB, (0.4, 2.0, 0.4), noise=loud), 0.01) == pytest.approx(2.0, rel=0.12)


def test_a_small_light_and_a_small_frame_change_nothing():
    shot = exposure(BAYER_RGGB, (0.3, 0.3, 0.3))
    shot.signal[:24, :24] = 1.0
    assert headroom(shot, 0.01) == 1.0
    assert headroom(shot, 0.0) == pytest.approx(20.0, rel=1e-4)
    assert headroom(exposure(BAYER_RGGB, (9.0, 9.0, 9.0), shape=(20, 200)), 0.01) == 1.0
