"""A prior is asked at a familiar exposure, and turns with its image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.symmetries import turned, turned_back
from lowlight_kedro.restoration.equivariance import LOUDEST, Symmetric, familiar_ratio
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.settings import Highlights
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.noise import PoissonGaussian

BALANCE = (2.0, 1.0, 1.5)
ONE_PER_CENT = Highlights(0.01, 1.0)


def exposure(cfa, light, ratio=10.0, noise=None, shape=(240, 312)):
    """Balanced light (3,) at the long exposure, as a short one records it; `light` fills the frame but a dark stripe."""
    scene = np.broadcast_to(np.reshape(light, (3, 1, 1)) / np.reshape(BALANCE, (3, 1, 1)) / ratio, (3, *shape)).copy()
    scene[:, :, : shape[1] // 4] *= 0.01
    signal = sample(scene, cfa).astype(np.float32)
    if noise is not None:
        signal = noise.sample(signal, np.random.default_rng(0)).astype(np.float32)
    return Exposure(signal, cfa, BALANCE, ratio, noise or PoissonGaussian(1e-6, 1e-5))


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
@pytest.mark.parametrize("light", [(0.3, 0.5, 0.9), (0.003, 0.005, 0.017), (3.0, 2.0, 1.0)])
def test_the_brightest_channel_comes_to_white(cfa, light):
    shot = exposure(cfa, light)
    assert familiar_ratio(shot, ONE_PER_CENT) * max(light) / shot.exposure_ratio == pytest.approx(1, rel=1e-4)
    assert familiar_ratio(shot, Highlights(0.01, 0.1)) * max(light) / shot.exposure_ratio == pytest.approx(0.1, rel=1e-4)


def test_the_wanted_ratio_does_not_matter():
    shot = exposure(BAYER_RGGB, (0.2, 0.4, 0.3))
    assert familiar_ratio(replace(shot, exposure_ratio=1.0), ONE_PER_CENT) == familiar_ratio(
        replace(shot, exposure_ratio=300.0), ONE_PER_CENT
    )


def test_noise_is_not_taken_for_light():
    """Noise of a tenth of white in every site moves the answer by some per cent."""
    loud = PoissonGaussian(1e-4, 0.006)
    shot = exposure(BAYER_RGGB, (0.4, 0.8, 0.4), noise=loud)
    assert familiar_ratio(shot, ONE_PER_CENT) == pytest.approx(10 / 0.8, rel=0.1)


def test_black_is_not_lifted_without_end():
    noise = PoissonGaussian(1e-4, 1e-3)
    black = exposure(XTRANS, (0.0, 0.0, 0.0), noise=noise)
    assert familiar_ratio(black, ONE_PER_CENT) * noise.read_noise * max(BALANCE) == pytest.approx(LOUDEST)


def test_a_small_light_and_a_small_frame_change_nothing():
    shot = exposure(BAYER_RGGB, (0.5, 0.5, 0.5))
    before = familiar_ratio(shot, ONE_PER_CENT)
    shot.signal[:24, :24] = 1.0
    assert familiar_ratio(shot, ONE_PER_CENT) == before
    assert familiar_ratio(shot, Highlights(0.0, 1.0)) == pytest.approx(0.5, rel=1e-4)
    assert familiar_ratio(exposure(BAYER_RGGB, (9.0, 9.0, 9.0), shape=(20, 200)), ONE_PER_CENT) == 10.0


X = torch.arange(2 * 3 * 16 * 24).reshape(2, 3, 16, 24).double().sin()
SIGMA = 0.1 + X.cos().square()


class Lopsided(torch.nn.Module):
    """Knows left from right, top from bottom and rows from columns, in the image and in the map."""

    def forward(self, x, sigma):
        return x + sigma * x.roll(1, -1) + x.roll(1, -2).square() + 2 * sigma.roll(2, -2)


def test_the_eight_are_different_and_undone():
    corner = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = {str(turned(corner, number).tolist()) for number in range(8)}
    assert len(seen) == 8
    for number in range(8):
        assert torch.equal(turned_back(turned(corner, number), number), corner)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_mean_turns_with_its_input(count):
    denoiser = Symmetric(Lopsided(), count)
    plain = denoiser(X, SIGMA)
    for number in range(8):
        same = torch.allclose(denoiser(turned(X, number), turned(SIGMA, number)), turned(plain, number), atol=1e-12)
        assert same == (number < count)


def test_a_level_for_the_whole_image_is_its_own_map():
    level = torch.full((2, 1, 1, 1), 0.3, dtype=torch.float64)
    assert torch.equal(Symmetric(Lopsided(), 8)(X, level), Symmetric(Lopsided(), 8)(X, level.expand(X.shape)))


def test_what_is_symmetric_already_stays_as_it_is():
    torch.manual_seed(0)
    network = NETWORKS["pyramid_unet"](widths=[8], blocks=1)  # its last layer is 0: local means, the same from all sides
    denoiser = Denoiser(network, 0.5).double()
    torch.testing.assert_close(Symmetric(denoiser, 8)(X, SIGMA), denoiser(X, SIGMA), rtol=0, atol=1e-6)


def test_other_counts_are_refused():
    with pytest.raises(ValueError, match=r"symmetries must be one of \(1, 2, 4, 8\), got 3"):
        Symmetric(Lopsided(), 3)
