from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration import measurement
from lowlight_kedro.restoration.measurement import Operator, local_mean, noise_levels, observe, steady_mean
from lowlight_kedro.sensor.cfa import UNFILTERED, masks, sample
from lowlight_kedro.sensor.frame import balanced
from lowlight_kedro.sensor.noise import PoissonGaussian
from tests.conftest import CFAS

SCALING = Scaling(-0.7, 0.8)
WHITE_BALANCE, RATIO = (2.0, 1.0, 1.6), 30.0
SHAPES = [(24, 30), (17, 13), (1, 5)]


def operator_of(cfa):
    return Operator.of(cfa, WHITE_BALANCE, RATIO, SCALING)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cfa", [*CFAS, UNFILTERED])
def test_the_adjoint_is_the_adjoint(cfa, shape):
    """<A x, m> = <x, A^T m>, with a batch axis."""
    plain = operator_of(cfa)
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    for operator in (plain, replace(plain, shading=1 + torch.rand_like(plain.apply(x[0])))):
        m = torch.randn_like(operator.apply(x))
        torch.testing.assert_close((operator.apply(x) * m).sum(), (x * operator.adjoint(m)).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cfa", [*CFAS, UNFILTERED])
def test_embedding_undoes_the_operator_where_it_measures(cfa, shape):
    plain, x = operator_of(cfa), torch.randn(3, *shape, dtype=torch.float64)
    mask = plain.mask(shape)
    for operator in (plain, replace(plain, shading=1 + torch.rand_like(plain.apply(x)))):
        torch.testing.assert_close(operator.embed(operator.signal(x)), x * mask)
    assert np.array_equal(mask.numpy().astype(bool), masks(cfa, shape))


@pytest.mark.parametrize("cfa", [*CFAS, UNFILTERED])
def test_the_operator_divides_light_by_ratio_and_white_balance(cfa, rng):
    """What the long exposure would show, from the signal by the sensor's own white balance."""
    operator, signal = operator_of(cfa), sample(rng.uniform(size=(3, 12, 18)).astype(np.float32), cfa)
    y, _ = observe(signal, operator)
    light = (SCALING.to_tile(y) + 1) / 2
    seen = sample(light[0].numpy(), cfa)
    np.testing.assert_allclose(seen, RATIO * balanced(signal, cfa, WHITE_BALANCE), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cfa", CFAS)
def test_each_photosite_is_told_its_channel(cfa):
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(11), indexing="ij")
    told = operator_of(cfa).channels(rows, columns)
    assert np.array_equal(told.numpy(), masks(cfa, (13, 11)).argmax(0))


def test_the_noise_map_is_the_standard_deviation_of_simulated_measurements(rng):
    """Simulate, scale, balance, map to network units, and measure: the map must tell what comes out."""
    noise, ratio, gains, light = PoissonGaussian(1e-4, 4e-4), 100.0, (2.0, 1.0, 1.6), 0.2
    clean = SCALING.to_network(torch.full((1, 3, 32, 32), 2 * light - 1.0))
    told = noise_levels(clean, noise, ratio, gains, SCALING)[0, :, 16, 16]
    for channel, gain in enumerate(gains):
        raw = noise.sample(np.full((400, 400), light / gain / ratio), rng)
        y = SCALING.to_network(2 * raw * gain * ratio - 1)
        assert y.std() == pytest.approx(float(told[channel]), rel=5 / np.sqrt(2 * y.size) + 1e-3)


def test_the_noise_map_is_finite_and_positive_on_black_and_below():
    clean = torch.full((1, 3, 16, 16), SCALING.to_network(-1.0)) - torch.tensor([0.0, 0.5, 100.0]).reshape(1, 3, 1, 1)
    s = noise_levels(clean, PoissonGaussian(1e-4, 4e-4), RATIO, WHITE_BALANCE, SCALING)
    assert bool((s > 0).all())
    torch.testing.assert_close(s[0, :, 0, 0], 4e-4 * torch.tensor(operator_of(CFAS[0]).gains))


@pytest.mark.parametrize("cfa", [CFAS[0], CFAS[-1]])
def test_the_noise_level_is_not_biased_by_the_noise(cfa, rng):
    """Taken from a smoothed estimate its mean is the true level, also where the noise is negative: there the pixel itself tells less."""
    noise, ratio, light = PoissonGaussian(1e-3, 1e-3), 30.0, 0.05
    operator = Operator.of(cfa, WHITE_BALANCE, ratio, SCALING)
    clean = torch.full((1, 3, 60, 60), SCALING.to_network(2 * light - 1))
    truth = noise_levels(clean, noise, ratio, WHITE_BALANCE, SCALING)
    told, below, at_the_pixel = [], [], []
    for _ in range(20):
        y, mask = observe(noise.sample(operator.signal(clean[0]).numpy(), rng), operator)
        told.append(noise_levels(local_mean(y, mask, 4), noise, ratio, WHITE_BALANCE, SCALING) / truth)
        negative = (mask > 0) & (y < clean)
        below.append(told[-1][negative].mean())
        at_the_pixel.append((noise_levels(y, noise, ratio, WHITE_BALANCE, SCALING, reach=0) / truth)[negative].mean())
    assert torch.stack(told).mean(dim=(0, 1, 3, 4)).numpy() == pytest.approx(1, abs=0.01)
    assert float(torch.stack(below).mean()) == pytest.approx(1, abs=0.02)
    assert float(torch.stack(at_the_pixel).mean()) < 0.9


def test_the_noise_map_does_not_follow_the_noise_that_an_estimate_has_left(rng):
    """Of an estimate with noise of its own: where that is negative the level is the true one all the same."""
    noise, clean = PoissonGaussian(1e-3, 1e-3), torch.full((1, 3, 80, 80), SCALING.to_network(-0.9))
    truth = noise_levels(clean, noise, RATIO, WHITE_BALANCE, SCALING)
    left = 0.4 * truth * torch.from_numpy(rng.normal(size=clean.shape)).float()
    told = noise_levels(clean + left, noise, RATIO, WHITE_BALANCE, SCALING)[left < 0] / truth[left < 0]
    assert float(told.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("cfa", CFAS)
def test_the_local_mean_of_a_flat_mosaic_is_flat(cfa):
    y, mask = observe(np.full((24, 30), 0.3, np.float32), Operator.of(cfa, (1, 1, 1), 1.0, SCALING))
    torch.testing.assert_close(local_mean(y, mask, 4), torch.full_like(y, SCALING.to_network(-0.4)))


@pytest.mark.parametrize("cfa", [CFAS[0], CFAS[-1]])
def test_of_few_photons_the_noise_level_is_told_by_many_sites(cfa, rng):
    """The error of the level of flat light is less than half of a local mean's; with light enough an edge of light stays where it is."""
    ratio, side, errors, edges = 30.0, 96, [], []
    operator = Operator.of(cfa, WHITE_BALANCE, ratio, SCALING)
    flat = torch.full((1, 3, side, side), SCALING.to_network(2 * 0.05 - 1))
    edge = flat.clone()
    edge[..., side // 2 :] = SCALING.to_network(2 * 0.3 - 1)
    for light, gain, told in ((flat, 5e-3, errors), (edge, 1e-5, edges)):
        noise = PoissonGaussian(gain, 1e-3)
        level = partial(noise_levels, noise=noise, exposure_ratio=ratio, white_balance=WHITE_BALANCE, scaling=SCALING)
        y, mask = observe(noise.sample(operator.signal(light[0]).numpy(), rng), operator)
        told += [steady_mean(y, mask, 4, level), local_mean(y, mask, 4)]
        if light is flat:
            told[:] = [(level(mean) / level(flat) - 1).square().mean().sqrt() for mean in told]
    assert errors[0] < 0.5 * errors[1]
    near = (edges[0] - edges[1]).abs()[..., side // 2 - 8 : side // 2 + 8].mean()
    assert near < 0.02 * float(edge.max() - edge.min())


def test_strips_do_not_show(monkeypatch):
    """What is computed some rows at a time is what is computed at once, edges included."""
    x, noise = torch.rand(1, 3, 37, 20), PoissonGaussian(1e-3, 1e-3)
    y, mask = observe(np.random.default_rng(0).uniform(size=(37, 20)), operator_of(CFAS[0]))
    told = []
    for rows in (1000, 8, 1):
        monkeypatch.setattr(measurement, "STRIP", rows)
        level = partial(noise_levels, noise=noise, exposure_ratio=RATIO, white_balance=WHITE_BALANCE, scaling=SCALING)
        told.append((level(x), local_mean(y, mask, 4), steady_mean(y, mask, 4, level)))
    for other in told[1:]:
        torch.testing.assert_close(other, told[0])
    reference = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(y, (4,) * 4, mode="reflect"), 9, stride=1)
    torch.testing.assert_close(measurement._smooth(y, slice(0, 37), 4), reference)
