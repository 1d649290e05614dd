"""Points of light that a posterior mean dims."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lowlight_kedro.restoration import points
from lowlight_kedro.restoration.measurement import Measurement, Operator, observe
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.noise import PoissonGaussian

SIDE, SKY, ZERO = 120, 0.002, -0.5
NOISE = PoissonGaussian(0.002, 0.002)
COLOUR = np.array([1.0, 0.8, 0.6])[:, None, None]
CENTRES = np.stack(np.meshgrid(*(np.arange(14, SIDE - 10, 20),) * 2, indexing="ij"), -1).reshape(-1, 2)


class Unscaled:
    """Network units are light less half."""

    scale = 2.0

    def to_network(self, tile):
        return tile / 2


def stars(fwhm, peak, rng):
    """Light (3, SIDE, SIDE): stars between pixels on a dark sky."""
    light = np.full((3, SIDE, SIDE), SKY)
    rows, columns = np.indices((SIDE, SIDE))
    for row, column in CENTRES + rng.uniform(-0.5, 0.5, CENTRES.shape):
        light += peak * COLOUR * np.exp(-4 * np.log(2) * ((rows - row) ** 2 + (columns - column) ** 2) / fwhm**2)
    return light


def measured(light, cfa, rng, noise=NOISE):
    """A measurement of `light` (3, H, W), and the light of a photon in each channel."""
    operator = Operator.of(cfa, (1.0, 1.0, 1.0), 1.0, Unscaled())
    whole = torch.from_numpy(light).float()[None] + operator.zero
    signal = operator.signal(whole)[0].numpy()
    y, mask = observe(noise.sample(signal, rng), operator)
    return Measurement(y, mask, torch.from_numpy(np.sqrt(noise.variance(light))).float()[None]), torch.full((3,), noise.gain), whole


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
@pytest.mark.parametrize("fwhm", [1.3, 2.0, 3.0])
def test_what_a_mean_lacks_of_stars_is_given_back(cfa, fwhm):
    rng = np.random.default_rng(0)
    light = stars(fwhm, 0.5, rng)
    measurement, photons, truth = measured(light, cfa, rng)
    mean = truth - 0.3 * (truth - SKY - ZERO)
    found = points.find(measurement, mean, photons, ZERO)
    assert len(found) == len(CENTRES)
    before, after = mean[0].numpy(), mean[0].numpy().copy()
    found.add_to(after, 1.0)
    lacked, given = (truth[0].numpy() - before).sum((1, 2)), (after - before).sum((1, 2))
    np.testing.assert_allclose(given / lacked, 1, atol=0.15)
    assert np.square(after - truth[0].numpy()).sum() < 0.3 * np.square(before - truth[0].numpy()).sum()


def test_stars_that_are_whole_stay_so():
    rng = np.random.default_rng(1)
    measurement, photons, truth = measured(stars(2.0, 0.5, rng), BAYER_RGGB, rng)
    found = points.find(measurement, truth, photons, ZERO)
    assert len(found) == len(CENTRES)
    assert abs(float(found.missing.sum() / (truth - SKY - ZERO).sum())) < 0.02


@pytest.mark.parametrize("sky", [0.0005, 0.01, 0.3])
def test_noise_is_no_point_however_few_its_photons(sky):
    rng = np.random.default_rng(2)
    measurement, photons, truth = measured(np.full((3, 400, 400), sky), BAYER_RGGB, rng)
    assert len(points.find(measurement, truth, photons, ZERO)) <= 1  # about one in ten million pixels


def test_a_defect_is_no_point():
    rng = np.random.default_rng(3)
    measurement, photons, truth = measured(np.full((3, SIDE, SIDE), SKY), BAYER_RGGB, rng)
    y, places = measurement.y.clone(), range(6, SIDE, 9)  # all colours
    for row in places:
        y[0, :, row, places] += 0.5 * measurement.mask[0, :, row, places]
    assert not len(points.find(replace(measurement, y=y), truth, photons, ZERO))


@pytest.mark.parametrize("ground", [lambda rows: np.full(rows.shape, 0.3), lambda rows: 0.5 * (rows % 8 == 0)], ids=["bright", "uneven"])
def test_on_bright_or_uneven_ground_the_prior_knows_better(ground):
    rng = np.random.default_rng(4)
    light = stars(1.6, 0.5, rng)
    under = light + ground(np.indices((SIDE, SIDE))[0])
    measurement, photons, truth = measured(under, BAYER_RGGB, rng)
    mean = truth - 0.3 * torch.from_numpy(light - SKY).float()
    assert not len(points.find(measurement, mean, photons, ZERO))


def test_strips_do_not_show(monkeypatch):
    rng = np.random.default_rng(5)
    measurement, photons, truth = measured(stars(1.6, 0.5, rng), XTRANS, rng)
    mean = truth - 0.3 * (truth - SKY - ZERO)
    whole = points.find(measurement, mean, photons, ZERO)
    monkeypatch.setattr(points, "STRIP", 30)
    monkeypatch.setattr(points, "AT_ONCE", 5)
    parts = points.find(measurement, mean, photons, ZERO)
    assert len(whole) == len(CENTRES)
    torch.testing.assert_close(parts.centres, whole.centres)
    torch.testing.assert_close(parts.missing, whole.missing, rtol=1e-4, atol=1e-6)


def test_a_point_at_the_edge_is_added_as_far_as_the_frame_goes():
    square = torch.arange(243.0).reshape(1, 3, 9, 9)
    light = np.zeros((3, 6, 20), np.float32)
    points.Points(torch.tensor([[1, 18]]), square).add_to(light, 2.0)
    np.testing.assert_array_equal(light[:, :6, 14:], 2 * square[0, :, 3:, :6])
    assert not light[:, :, :14].any()
