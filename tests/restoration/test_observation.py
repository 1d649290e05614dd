"""What a pass teaches the next one about clipped photosites."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.observation import Clipped, Exposure, Learned, Observation
from lowlight_kedro.restoration.residuals import remains_of
from lowlight_kedro.restoration.saturation import one_sided
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.noise import CameraNoise


@pytest.fixture
def observation():
    signal = np.full((16, 16), 0.1, np.float32)
    signal[4:6, 4:6] = 0.6
    exposure = Exposure(signal, BAYER_RGGB, (1.0, 1.0, 1.0), 1.0, CameraNoise(1e-9, 0.05, white=0.6))
    return Observation(exposure, Scaling(0.0, 1.0), torch.device("cpu"), Structure())


@pytest.mark.parametrize("known", [True, False])
def test_what_stands_for_a_clipped_photosite_does_not_count_twice(observation, known):
    """All others say N(c, r^2). Whatever stood for the photosite in the pass before, the next pass starts from c again."""
    s, h, level, c = 0.1, 0.6, 0.2, torch.linspace(-0.2, 0.3, 4).double()
    r2 = s**2 * h / (1 - h)
    y, told = one_sided(torch.full_like(c, level), torch.full_like(c, s), c, torch.full_like(c, r2))
    before = (y - 0.1, 2 * told) if known else (torch.zeros_like(c), torch.full_like(c, torch.inf))
    weight = r2 / (r2 + before[1] ** 2)
    clean = torch.zeros(1, 3, 16, 16)
    learned = Learned(h=h, clipped=Clipped(c + weight * (before[0] - c), *before))
    measurement = observation.measurement(clean, learned)
    torch.testing.assert_close(measurement.y.view(-1)[observation.places].double(), y, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(measurement.s.view(-1)[observation.places].double(), told, rtol=1e-3, atol=1e-3)


def test_clipped_photosites_do_not_show_offsets(observation):
    measurement = observation.measurement(torch.zeros(1, 3, 16, 16))
    seen = observation._unclipped(measurement)
    assert int(measurement.mask.sum()) - int(seen.mask.sum()) == len(observation.places) == 4
    assert not seen.mask.view(-1)[observation.places].any()


def test_a_local_mean_leaves_the_black_level_error_in_the_noise(observation):
    noise = CameraNoise(1e-9, 0.05, row_noise=0.02, black_error=0.03, white=0.6)
    observation = Observation(replace(observation.exposure, noise=noise), observation.scaling, observation.device, Structure())
    learned = observation.learn_from_local_mean(observation.first(4))
    assert (learned.apart.rows, learned.apart.black) == (0.02, 0.0)


def test_what_a_defect_shows_does_not_count(observation):
    """Neither as a value nor, above white, as a clipped one; the other sites stay as they are."""
    signal = observation.exposure.signal.copy()
    signal[3, 4], signal[5, 6] = 7.0, 0.9
    defects = np.zeros(signal.shape, bool)
    defects[3, 4] = defects[5, 6] = True
    with_defects = Observation(
        replace(observation.exposure, signal=signal, defects=defects), observation.scaling, observation.device, Structure()
    )
    y, mask = with_defects.observed()
    before, before_mask = observation.observed()
    assert not mask[..., torch.from_numpy(defects)].any()
    assert not y[..., torch.from_numpy(defects)].any()
    torch.testing.assert_close(y[..., ~torch.from_numpy(defects)], before[..., ~torch.from_numpy(defects)])
    assert torch.equal(mask[..., ~torch.from_numpy(defects)], before_mask[..., ~torch.from_numpy(defects)])
    assert len(with_defects.places) <= len(observation.places)


@pytest.mark.parametrize("lines", [False, True])
def test_shading_by_two_is_an_exposure_ratio_twice_as_great(lines):
    """In the measurement, in what it teaches of rows and clipped sites, in the raised result: nothing takes the one for anything else."""
    rng, noise = np.random.default_rng(5), CameraNoise(1e-3, 0.02, row_noise=0.02, black_error=0.01, white=0.6)
    signal = rng.normal(0.2, 0.1, (96, 96)).astype(np.float32) + rng.normal(0, 0.1, (96, 1)).astype(np.float32)
    plain = Exposure(signal, BAYER_RGGB, (2.0, 1.0, 1.6), 3.0, noise, added_std=np.full_like(signal, 0.01))
    shaded = replace(plain, exposure_ratio=1.5, shading=np.full_like(signal, 2.0))
    mean, seen = torch.rand(1, 3, 96, 96), []
    for exposure in (plain, shaded):
        observation = Observation(exposure, Scaling(-0.1, 0.8), torch.device("cpu"), Structure(lines=lines))
        first = observation.measurement(mean, observation.learn_from_local_mean(observation.first(4)))
        learned = observation.learn(first, mean, again=lambda measurement: measurement.y * 0.5)
        again = observation.measurement(mean, learned)
        remains = remains_of(again, mean, observation.gains)
        numbers = torch.tensor([remains.mean_square, remains.rows, remains.columns])
        seen.append([first.y, first.s, again.y, again.s, observation.project(mean), numbers])
    assert len(observation.blown)
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other)
