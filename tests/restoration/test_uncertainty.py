"""Standard deviation from the mean's response, against the exact posterior of a Gaussian prior."""

import pytest
import torch

from lowlight_kedro.restoration.guidance import noise_map
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.uncertainty import box, comb, moved, response_std, with_virtual_levels
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

SIDE = 12
SHAPE = (3, SIDE, SIDE)
MASKS = {
    "rgb": torch.ones(1, *SHAPE, dtype=torch.float64),
    "bayer": torch.from_numpy(masks(BAYER_RGGB, SHAPE[1:])).double()[None],
    "xtrans": torch.from_numpy(masks(XTRANS, SHAPE[1:])).double()[None],
}
LEVELS = {
    "homoscedastic": torch.full((1, *SHAPE), 0.3, dtype=torch.float64),
    "heteroscedastic": 0.3 * torch.exp(-torch.arange(SIDE, dtype=torch.float64) / SIDE).expand(1, *SHAPE).clone(),
}


def scene(name, level="homoscedastic"):
    """A measurement, its posterior mean as a function of the measurement, and the exact posterior's mean and std."""
    generator = torch.Generator().manual_seed(0)
    prior, mask, s = Gaussian.smooth(SHAPE), MASKS[name], LEVELS[level]
    truth = prior.sample(1, generator)
    y = mask * (truth + s * torch.randn(truth.shape, dtype=torch.float64, generator=generator))
    mean, covariance = prior.posterior(y.flatten(1), (mask / s.square()).flatten())

    def mean_of(measurement):
        posterior = noise_map(prior.denoiser, measurement).mean
        return posterior()

    return Measurement(y, mask, s), mean_of, mean.reshape(y.shape), covariance.diag().sqrt().reshape(y.shape)


def ran(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("seed", range(6))
def test_one_value_moved_alone_tells_its_standard_deviation_exactly(name, seed):
    """Measured and virtual: no other value leaks over and nothing is averaged."""
    measurement, mean_of, mean, exact = scene(name, "heteroscedastic")
    teeth = comb(measurement.mask, SIDE, ran(seed))
    std = response_std(mean_of, measurement, mean, probes=1, spacing=SIDE, reach=0, step=0.5, generator=ran(seed))
    assert int(teeth.chosen.sum()) == 1
    torch.testing.assert_close(std[teeth.where][teeth.chosen], exact[teeth.where][teeth.chosen], rtol=2e-3, atol=0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("name", "measured_error", "virtual_error"), [("rgb", 0.07, 0), ("bayer", 0.06, 0.15), ("xtrans", 0.06, 0.15)])
def test_a_map_agrees_with_the_exact_one(name, level, measured_error, virtual_error):
    """Mean within 4 %; a site's root mean square error is leak, and what a local average cannot follow: in a mosaic the corners."""
    measurement, mean_of, mean, exact = scene(name, level)
    std = response_std(mean_of, measurement, mean, probes=12, spacing=5, reach=3, step=0.5, generator=ran())
    for kind, limit in ((measurement.mask > 0, measured_error), (measurement.mask == 0, virtual_error)):
        if kind.any():
            ratio = (std / exact)[kind]
            assert abs(float(ratio.mean()) - 1) < 0.04
            assert float((ratio - 1).square().mean().sqrt()) < limit


def test_measured_values_of_any_prior_are_exact_for_a_small_step():
    """Two-point prior, x0 = +-1: D = tanh(y / s^2) and Var = 1 - D^2, far from Gaussian; s > 1, so that Var < s^2."""
    y = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    s = torch.full_like(y, 1.2)
    measurement = Measurement(y, torch.ones_like(y), s)

    def mean_of(asked):
        return torch.tanh(asked.y / asked.s.square())

    teeth = comb(measurement.mask, 1, ran())
    std = response_std(mean_of, measurement, mean_of(measurement), probes=1, spacing=1, reach=0, step=1e-5, generator=ran())
    exact = (1 - mean_of(measurement).square()).sqrt()
    # the pseudo-count mixes in a little of the whole frame
    torch.testing.assert_close(std[teeth.chosen], exact[teeth.chosen], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", MASKS)
def test_a_virtual_measurement_at_the_mean_changes_nothing(name):
    measurement, mean_of, mean, _ = scene(name)
    same, shift = moved(measurement, mean, comb(measurement.mask, 3, ran()), 0.0, ran())
    assert not shift.any()
    torch.testing.assert_close(mean_of(same), mean, rtol=0, atol=2e-3)


def test_the_step_cancels_on_a_gaussian_prior():
    measurement, mean_of, mean, _ = scene("bayer")
    small, large = (
        response_std(mean_of, measurement, mean, probes=2, spacing=5, reach=2, step=step, generator=ran()) for step in (0.1, 2.0)
    )
    torch.testing.assert_close(small, large, rtol=0.02, atol=0)


def test_a_comb_visits_every_colour_measured_or_not_one_channel_a_photosite():
    mask = torch.from_numpy(masks(XTRANS, (120, 120))).double()[None]
    teeth = comb(mask, 5, ran())
    assert torch.equal(teeth.chosen.sum(1), torch.ones_like(teeth.chosen[:, 0], dtype=torch.long))
    assert teeth.chosen.shape[-2:] == (24, 24)
    measured = mask[teeth.where] > 0
    fraction = (teeth.chosen & measured).sum() / teeth.chosen.sum()
    assert abs(float(fraction) - 0.5) < 0.1
    for channel in range(3):
        assert (teeth.chosen & measured)[0, channel].any()
        assert (teeth.chosen & ~measured)[0, channel].any()


def test_virtual_levels_leave_measured_ones_and_grow_with_contrast():
    measurement, _, mean, _ = scene("bayer")
    levels = with_virtual_levels(measurement, mean, 2).s
    flat = with_virtual_levels(measurement, torch.zeros_like(mean), 2).s
    assert torch.equal(levels[measurement.mask > 0], measurement.s[measurement.mask > 0])
    assert (levels >= measurement.s).all()
    torch.testing.assert_close(flat, measurement.s)
    assert (levels[measurement.mask == 0] > 1.01 * measurement.s[measurement.mask == 0]).any()


def test_a_box_keeps_its_mass_and_its_place():
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1
    smooth = box(x, 2)
    torch.testing.assert_close(smooth.sum(), torch.tensor(1.0))
    assert torch.equal(smooth, smooth.flip(-1))
    assert smooth[..., 7, 7] == smooth.max()
    assert (smooth > 0).sum() == 9 * 9


def test_a_frame_smaller_than_comb_and_window_has_a_finite_map_and_inputs_stay():
    y = torch.zeros(1, 3, 4, 6)
    mask = torch.from_numpy(masks(BAYER_RGGB, (4, 6))).float()[None]
    measurement = Measurement(y, mask, torch.full_like(y, 0.1))
    before = [t.clone() for t in (y, mask, measurement.s)]
    std = response_std(lambda asked: 0.5 * asked.y * asked.mask, measurement, y, probes=3, spacing=7, reach=9, step=0.5, generator=ran())
    assert torch.isfinite(std).all()
    assert (std > 0).all()
    assert all(torch.equal(a, b) for a, b in zip(before, (measurement.y, measurement.mask, measurement.s), strict=True))


@pytest.mark.parametrize("spacing", [1, 5, 7])
def test_a_map_does_not_depend_on_the_strips_it_is_made_in(spacing, monkeypatch):
    generator = ran()
    mask = torch.from_numpy(masks(XTRANS, (70, 33))).to(torch.uint8)[None]
    s = 0.1 + torch.rand(1, 3, 70, 33, generator=generator, dtype=torch.float64)
    asked = Measurement(mask * torch.randn(s.shape, generator=generator, dtype=torch.float64), mask, s)

    def mean_of(measurement):
        return torch.nn.functional.avg_pool2d(measurement.mask * measurement.y / (1 + measurement.s), 3, 1, 1)

    found = []
    for rows in (1000, 9):
        monkeypatch.setattr("lowlight_kedro.restoration.measurement.STRIP", rows)
        found.append(response_std(mean_of, asked, mean_of(asked), probes=2, spacing=spacing, reach=4, step=1.0, generator=ran()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=0)
    assert found[0].std() > 0


def test_where_nothing_was_probed_the_frame_tells():
    """The mean follows every measured value by half: A = s^2, whether its neighbours were probed or not."""
    mask = torch.from_numpy(masks(BAYER_RGGB, (40, 44))).to(torch.uint8)[None]
    asked = Measurement(torch.zeros(1, 3, 40, 44, dtype=torch.float64), mask, torch.full((1, 3, 40, 44), 0.1, dtype=torch.float64))
    std = response_std(lambda m: 0.5 * m.y * m.mask, asked, asked.y, probes=2, spacing=13, reach=0, step=1.0, generator=ran())
    measured = std[mask > 0]
    torch.testing.assert_close(measured, torch.full_like(measured, 0.1 * 0.5**0.5), rtol=1e-2, atol=0)
