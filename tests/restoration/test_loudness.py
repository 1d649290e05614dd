"""Offsets have no photon noise: how loud a frame is tells them from light."""

import numpy as np
import pytest
import torch

from lowlight_kedro.restoration.loudness import of_lines
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.profiles import dct
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from lowlight_kedro.sensor.noise import PoissonGaussian
from tests.restoration.test_black import BRIGHT, NOISE, SIDE, blocks


def test_blocks_are_sums_over_sites():
    sums = blocks(0.5, cfa=XTRANS)
    assert sums.sites.sum() == SIDE**2
    assert sums.sites.min() > 20
    np.testing.assert_allclose(sums.shown.sum() / SIDE**2, 0.5 + BRIGHT.mean(), atol=0.05)
    whole = (sums.left.sum(axis=(1, 2)) / sums.sites.sum(axis=(0, 2, 3))).mean()
    np.testing.assert_allclose(whole, NOISE.variance(BRIGHT).mean(), rtol=0.03)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_loudness_tells_offsets_from_light(cfa):
    """Of a frame whose prior takes everything for light, a wave of light and a wave that is none; as exactly as what lies beside says."""
    noise, lines = PoissonGaussian(0.25, 1.0), np.arange(288)
    gains, mask = torch.tensor([2.0, 1.0, 1.6], dtype=torch.float64).reshape(1, 3, 1, 1), torch.from_numpy(masks(cfa, (288, 288)))[None]
    wave, light = np.cos(2 * np.pi * (lines + 0.5) / 48), 1.5 + np.cos(2 * np.pi * (lines + 0.5) / 72)
    errors, told = [], []
    for seed in range(4):
        shown = noise.sample(np.repeat(light[:, None], 288, axis=1), np.random.default_rng(seed)) + wave[:, None]
        y = mask * (torch.from_numpy(shown) * gains - 1)
        mean = (torch.from_numpy(light + wave).reshape(1, 1, -1, 1) * gains - 1).expand_as(y)
        rows, columns = of_lines(Measurement(y, mask, torch.ones_like(y)), mean, torch.zeros_like(y), gains, -1.0, noise)
        for found, offsets in ((rows, wave), (columns, 0 * wave)):
            off = found[:, 0] - offsets
            errors.append(dct(off - off.mean())[1:48])
            told.append(dct(found[:, 1:].T)[:, 1:48])
    assert np.mean(np.square(errors)) == pytest.approx(np.mean(np.square(told)), rel=0.35)
    wave_at, light_at = np.array(errors)[::2, 2 * 288 // 48 - 1], np.array(errors)[::2, 2 * 288 // 72 - 1]
    assert abs(wave_at.mean()) < 0.15 * 12  # of a wave of 12, as great as that of light
    assert abs(light_at.mean()) < 0.1 * 12
