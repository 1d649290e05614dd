import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.measurement import local_mean, noise_map, observe
from lowlight_kedro.sensor.cfa import sample
from lowlight_kedro.sensor.noise import PoissonGaussian
from tests.conftest import CFAS

SCALING = Scaling(-0.7, 0.8)


@pytest.mark.parametrize("cfa", CFAS)
def test_a_noise_free_exposure_is_the_masked_image(cfa, rng):
    light = rng.uniform(size=(3, 24, 30)).astype(np.float32)
    y, mask = observe(sample(light, cfa), cfa, SCALING)
    expected = SCALING.to_network(torch.from_numpy(2 * light - 1))[None] * mask
    torch.testing.assert_close(y, expected)


def test_the_noise_map_is_the_standard_deviation_of_simulated_measurements(rng):
    """Simulate, scale, balance, map to network units, and measure: the map must tell what comes out."""
    noise, ratio, gains, light = PoissonGaussian(1e-4, 4e-4), 100.0, (2.0, 1.0, 1.6), 0.2
    clean = SCALING.to_network(torch.full((1, 3, 32, 32), 2 * light - 1.0))
    told = noise_map(clean, noise, ratio, gains, SCALING)[0, :, 16, 16]
    for channel, gain in enumerate(gains):
        raw = noise.sample(np.full((400, 400), light / gain / ratio), rng)
        y = SCALING.to_network(2 * raw * gain * ratio - 1)
        assert y.std() == pytest.approx(float(told[channel]), rel=5 / np.sqrt(2 * y.size) + 1e-3)


@pytest.mark.parametrize("cfa", CFAS)
def test_the_local_mean_of_a_flat_mosaic_is_flat(cfa):
    y, mask = observe(np.full((24, 30), 0.3, np.float32), cfa, SCALING)
    torch.testing.assert_close(local_mean(y, mask, 4), torch.full_like(y, SCALING.to_network(-0.4)))
