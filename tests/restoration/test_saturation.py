"""One-sided likelihood of clipped photosites, against numerical and sampled answers."""

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.restoration.measurement import Operator
from lowlight_kedro.restoration.saturation import LOOSEST, at_least_level, clipped, floor_of, level, one_sided, replace_clipped, stand_in
from lowlight_kedro.sensor.cfa import sample
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from tests.conftest import CFAS


def operator_of(cfa):
    return Operator.of(cfa, (2.0, 1.0, 1.6), 1.0, Scaling(-0.7, 0.8))


def tensors(*values):
    return (torch.tensor(value, dtype=torch.float64) for value in values)


@pytest.mark.parametrize("centre", [-3.0, 0.5, 1.0, 1.4, 2.5])
@pytest.mark.parametrize("s", [0.05, 0.4])
def test_the_stand_in_has_the_moments_of_the_truncated_posterior(centre, s):
    """x ~ N(centre, 0.3^2) and x + s n >= 1: mean and variance by quadrature."""
    bound, variance = 1.0, 0.09
    x = np.linspace(centre - 6, centre + 9, 400001)
    chance = torch.special.log_ndtr(torch.from_numpy((x - bound) / s)).numpy()
    log_density = chance - (x - centre) ** 2 / (2 * variance)
    weight = np.exp(log_density - log_density.max())
    mean = (x * weight).sum() / weight.sum()
    spread = ((x - mean) ** 2 * weight).sum() / weight.sum()
    y, told = (float(t) for t in one_sided(*tensors(bound, s, centre, variance)))
    precision = 1 / variance + told**-2
    assert (centre / variance + y * told**-2) / precision == pytest.approx(mean, abs=1e-4)
    assert 1 / precision == pytest.approx(spread, rel=1e-3)


def test_far_below_it_is_a_measurement_of_the_bound_and_far_above_nothing():
    centre = torch.tensor([-1e6, -1e4, -50.0, 60.0, 1e6], dtype=torch.float64)
    y, s = one_sided(torch.ones_like(centre), torch.full_like(centre, 0.1), centre, torch.full_like(centre, 0.04))
    # what is told of x: the mean stays within s^2 / (bound - centre) of the bound
    mean = (centre / 0.04 + y / s**2) / (1 / 0.04 + 1 / s**2)
    equality = (centre / 0.04 + 1 / 0.1**2) / (1 / 0.04 + 1 / 0.1**2)
    assert bool((mean[:3] > equality[:3]).all())
    torch.testing.assert_close(s[:3], torch.full_like(s[:3], 0.1), rtol=0.01, atol=0)
    torch.testing.assert_close(y[1:3], torch.ones(2, dtype=torch.float64), rtol=0, atol=0.01)
    assert bool((s[3:] > SIGMA_UNKNOWN).all())
    assert not bool(torch.isnan(s).any())


@pytest.mark.parametrize("cfa", CFAS)
def test_clipped_photosites_are_found_in_their_channel(cfa, rng):
    operator, signal = operator_of(cfa), torch.from_numpy(rng.uniform(0, 1.2, size=(13, 17)).astype(np.float32))
    y = operator.embed(signal)
    places = clipped(signal, operator, 1.0)
    expected = (y > 0) & (y >= operator.embed(torch.ones_like(signal))) & (operator.mask(signal.shape) > 0)
    assert set(places.tolist()) == set(torch.nonzero(expected.reshape(-1))[:, 0].tolist())


def test_the_level_is_where_the_noise_model_clips():
    assert level(PoissonGaussian(1e-4, 1e-3)) == 1.0
    assert level(CameraNoise(1e-4, 1e-3, white=0.9, step=0.02)) == pytest.approx(0.89)
    assert level(CameraNoise(1e-4, 1e-3, white=None)) == float("inf")


@pytest.mark.parametrize("cfa", CFAS)
@pytest.mark.parametrize("shape", [(24, 30), (19, 23)])
def test_a_blown_area_is_white_and_its_surroundings_stay(cfa, shape):
    """A dark estimate in a lamp: raised to the level in every channel inside, untouched outside."""
    operator = operator_of(cfa)
    signal = torch.full(shape, 0.1)
    signal[6:16, 6:16] = 1.0
    places = clipped(signal, operator, 1.0)
    x = torch.zeros(1, 3, *shape) + operator.zero
    got = at_least_level(x, places, operator, 1.0)
    white = torch.tensor(operator.gains).reshape(3, 1, 1) + operator.zero
    assert bool((got[0, :, 8:14, 8:14] == white).all())
    outside = torch.ones(shape, dtype=torch.bool)
    outside[6:16, 6:16] = False
    assert torch.equal(got[..., outside], x[..., outside])
    assert bool((got.reshape(-1)[places] >= white.expand(3, *shape).reshape(-1)[places]).all())
    assert bool((x == operator.zero).all())


def test_one_clipped_photosite_alone_says_nothing_of_other_channels():
    cfa, shape = CFAS[0], (12, 12)
    signal = torch.full(shape, 0.1)
    signal[4, 4] = 1.0
    operator = operator_of(cfa)
    x = torch.zeros(1, 3, *shape)
    raised = at_least_level(x, clipped(signal, operator, 1.0), operator, 1.0) != x
    assert int(raised.sum()) == 1


def test_brighter_estimates_are_kept():
    operator = operator_of(CFAS[0])
    signal = torch.ones(8, 8)
    x = torch.full((1, 3, 8, 8), 9.0)
    assert torch.equal(at_least_level(x, clipped(signal, operator, 1.0), operator, 1.0), x)
    assert sample(x[0].numpy(), CFAS[0]).min() == 9.0


def test_what_would_tell_nothing_is_a_loose_measurement_of_what_is_believed():
    """Far above the bound, and where all else is sure; near and below it the exact stand-in counts."""
    bound, s, centre, variance = tensors([1.0] * 4, [0.1] * 4, [60.0, 2.0, 0.5, 1.0], [0.04, 0.0, 0.04, 0.04])
    y, told = stand_in(bound, s, centre, variance)
    torch.testing.assert_close(y[:2], centre[:2])
    torch.testing.assert_close(told[:2], LOOSEST * s[:2])
    exact = one_sided(bound, s, centre, variance)
    torch.testing.assert_close(torch.stack([y[2:], told[2:]]), torch.stack([part[2:] for part in exact]))


def test_stand_ins_are_written_where_they_belong():
    y, s = torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    replace_clipped(y, s, torch.tensor([1, 5]), *tensors([2.0, 3.0], [0.5, 4.0]))
    assert y.flatten()[:6].tolist() == [1, 2, 1, 1, 1, 3]
    assert s.flatten()[:6].tolist() == [1, 0.5, 1, 1, 1, 4]


def test_a_pile_at_black_is_told_from_noise_that_is_rounded_and_from_flat_pictures(rng):
    for read_dn in (1.0, 2.0, 6.0):
        noise = CameraNoise(1e-3, read_dn, step=1.0, white=None)
        dark = noise.sample(np.zeros((200, 200)), rng)
        assert floor_of(dark, noise) is None
        assert floor_of(dark + 512, noise) is None
        assert floor_of(np.maximum(dark, 0), noise) == 0.0
        assert floor_of(np.zeros((16, 16), np.float32), noise) is None
