import pytest
import torch

from lowlight_kedro.diffusion.draws import Draws, lognormal_sigma
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.corruption import (
    ALL_CORRUPTIONS,
    DIM,
    camera_sigma,
    local_light,
    mosaic_masks,
    noise_map,
    shown_weights,
    unknown_weights,
)
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN
from lowlight_kedro.sensor.tiles import TILE_SLOPE

SCALING = Scaling(-0.7, 0.8)
OPTIONS = {
    "uniform_fraction": 0.25, "camera_fraction": 0.25, "shot": [5e-3, 2e-2], "read": [0.02, 0.08], "balance": [1.0, 2.2],
    "mosaics": ["bayer", "xtrans"], "unknown_fraction": 0.5, "unknown_weight": 3.0, "unknown_floor": 0.05,
}  # fmt: skip
BY_NAME = {"uniform": {}, "noise_map": OPTIONS}


def images(count=400, side=24):
    return torch.randn(count, 3, side, side) * 0.5


@pytest.mark.parametrize("name", ALL_CORRUPTIONS)
def test_the_noise_has_the_level_that_sigma_tells(name):
    x0 = images()
    out = ALL_CORRUPTIONS[name](P_mean=-1.0, P_std=0.8, scaling=SCALING, **BY_NAME[name])(x0, Draws(0, range(len(x0))))
    known = out.sigma.expand(x0.shape) != SIGMA_UNKNOWN
    z = ((out.x - x0) / out.sigma)[known]
    assert abs(z.mean()) < 5 / z.numel() ** 0.5
    assert abs(z.var() - 1) < 5 * (2 / z.numel()) ** 0.5
    assert (out.x[~known] == 0).all()


def test_the_logarithm_of_a_uniform_level_is_normal():
    level = lognormal_sigma(images(4000, 1), Draws(0, range(4000)), -1.0, 0.8).log().flatten()
    assert abs(level.mean() + 1.0) < 5 * 0.8 / 4000**0.5
    assert abs(level.std() / 0.8 - 1) < 5 / 8000**0.5


@pytest.mark.parametrize("name", ALL_CORRUPTIONS)
def test_how_a_batch_is_cut_into_passes_changes_no_image(name):
    x0 = images(16)
    corrupt = ALL_CORRUPTIONS[name](P_mean=-1.0, P_std=0.8, scaling=SCALING, **BY_NAME[name])
    whole = corrupt(x0, Draws(0, range(16)))
    for size in (8, 4, 1):
        cut = [corrupt(part, Draws(0, range(k * size, k * size + size))) for k, part in enumerate(x0.split(size))]
        assert torch.equal(torch.cat([part.x for part in cut]), whole.x)
        assert torch.equal(torch.cat([part.sigma for part in cut]), whole.sigma)
        weights = torch.cat([torch.as_tensor(part.weight).expand_as(part.x) for part in cut])
        assert torch.equal(weights, torch.as_tensor(whole.weight).expand_as(whole.x))


def test_the_mixture_has_its_fractions():
    count = 3000
    out = noise_map(P_mean=-1.0, P_std=0.8, scaling=SCALING, **OPTIONS)(images(count, 12), Draws(0, range(count)))
    unknown = (out.sigma == SIGMA_UNKNOWN).flatten(1)
    some = unknown.any(1)
    uniform = (out.sigma.flatten(1) == out.sigma[:, :1, :1, :1].flatten(1)).all(1)
    for fraction, expected in ((some, 0.25), (uniform, 0.25)):
        assert abs(fraction.float().mean() - expected) < 5 * (expected * (1 - expected) / count) ** 0.5
    torch.testing.assert_close(unknown[some].float().mean(), torch.tensor(2 / 3), atol=1e-3, rtol=0)
    assert (out.weight[~unknown.reshape(out.x.shape)] == 1).all()
    assert (out.weight[unknown.reshape(out.x.shape)] > 3 * 0.25 / (0.25 + 0.05**2)).all()


def test_unknown_values_count_by_what_can_be_known_of_them():
    """Times the mean squared error of a method that is off by the floor, and by e^2, what is left is the same at every level."""
    s = torch.tensor([1e-4, 0.01, 0.1, 1.0, 100.0])
    weights = unknown_weights(s, 2.0, 0.05)
    error = s.square() * 0.25 / (s.square() + 0.25) + 0.05**2
    torch.testing.assert_close(weights * error, torch.full_like(s, 2.0 * 0.25))
    assert (weights.diff() < 0).all()
    assert weights[0] == pytest.approx(2.0 * 0.25 / 0.05**2, rel=1e-3)


def test_errors_count_as_they_are_shown():
    """A difference of d shown units weighs the same at every light and level, times what the noise there leaves."""
    light, shown_noise, shown_error, floor = torch.tensor([0.0, 0.01, 0.2, 0.9]), 0.03, 0.002, 0.01
    per_unit = 2 * (light + DIM).sqrt() * TILE_SLOPE / SCALING.scale  # network units per shown unit
    sigma = torch.tensor([0.1, 80.0, 0.3, 80.0])
    c_out = sigma * 0.5 / (sigma.square() + 0.25).sqrt()
    loss = shown_weights(light, shown_noise * per_unit, sigma, SCALING, floor) * (shown_error * per_unit / c_out).square()
    torch.testing.assert_close(loss, torch.full((4,), shown_error**2 / (shown_noise**2 / 4 + floor**2)))


def test_dead_sites_are_unknown_in_their_share_and_a_phase_may_be_fixed():
    options = OPTIONS | {"uniform_fraction": 0.0, "camera_fraction": 0.0, "mosaics": ["bayer"], "unknown_fraction": 1.0}
    corrupt = noise_map(P_mean=-1.0, P_std=0.8, scaling=SCALING, dead=0.02, phase=(0, 1), **options)
    measured = corrupt(images(), Draws(0, range(400))).sigma != SIGMA_UNKNOWN
    wanted = mosaic_masks(images(), ["bayer"], Draws(0, range(400)), (0, 1))
    assert not (measured & ~wanted).any()
    count = int(wanted.sum())
    assert abs((wanted & ~measured).sum() / count - 0.02) < 5 * (0.02 * 0.98 / count) ** 0.5 + 1e-4
    assert wanted[0, :, :2, :2].int().argmax(0).tolist() == [[1, 0], [2, 1]]  # RGGB from its second column on
    assert len({tuple(mask.flatten().tolist()) for mask in wanted}) == 1


def test_mosaics_measure_one_channel_per_site_at_every_phase():
    chosen = mosaic_masks(images(200, 12), ["bayer"], Draws(0, range(200)))
    assert (chosen.sum(1) == 1).all()
    assert len({tuple(mask[:, :2, :2].flatten().tolist()) for mask in chosen}) == 4


def test_a_camera_map_does_not_tell_the_pixels():
    """Within a patch the level is constant, so that the network cannot read the image off its own noise level."""
    x0 = images(4, 32)
    sigma = camera_sigma(local_light(x0, SCALING), SCALING, [1e-2, 1e-2], [0.04, 0.04], [1.0, 1.0], Draws(0, range(4)))
    patches = sigma.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4)
    torch.testing.assert_close(patches.amin(-1), patches.amax(-1))


def test_impossible_mixtures_are_refused():
    with pytest.raises(ValueError, match=r"got 0\.9 \+ 0\.25"):
        noise_map(P_mean=0, P_std=1, scaling=SCALING, **(OPTIONS | {"uniform_fraction": 0.9}))
    with pytest.raises(ValueError, match="mosaics must be among bayer, xtrans, got quad"):
        noise_map(P_mean=0, P_std=1, scaling=SCALING, **(OPTIONS | {"mosaics": ["quad"]}))
