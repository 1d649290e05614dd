"""Offsets of lines that one frame shows: found as they are, taken off, and nothing of a clean frame."""

import numpy as np
import pytest
import torch

from lowlight_kedro.restoration.lines import LEAST_SIDE, Lines, estimate, worth_it
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.profiles import Response, response
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from lowlight_kedro.sensor.noise import PoissonGaussian

SIDE, NOISE = 132, 0.1
DARK = PoissonGaussian(1e-6, NOISE)
GAINS = torch.tensor([2.0, 1.0, 1.6], dtype=torch.float64).reshape(1, 3, 1, 1)
FREQUENCY = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)) * 2
KEPT = torch.from_numpy(1 / (1 + (FREQUENCY / 0.15) ** 1.5))  # of noise and of light: light over noise and light


def filtered(x, response=KEPT):
    """The posterior mean of stationary Gaussian light, periodic at the rims."""
    return torch.fft.ifft2(torch.fft.fft2(x) * response).real


def shot(seed=0, shape=(SIDE, SIDE)):
    """Light (1, 3, H, W) that `filtered` is the posterior mean of, alike in all channels, and its noise, network units."""
    generator = torch.Generator().manual_seed(seed)
    light, noise = (NOISE * torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    return filtered(light, (KEPT / (1 - KEPT).clamp(min=1e-3)).sqrt()), noise


def measured(cfa, offset, seed=0):
    """The measurement and its posterior mean: every site tells light of one kind, so that the mosaic is one image."""
    light, noise = shot(seed)
    mask = torch.from_numpy(masks(cfa, (SIDE, SIDE)))[None]
    s = NOISE * torch.ones(1, 3, SIDE, SIDE, dtype=torch.float64) * GAINS
    y = mask * GAINS * (light + noise + offset)
    return Measurement(y, mask, s)


def mean(measurement):
    """Posterior mean of all channels, by their one image."""
    return GAINS * filtered((measurement.y / GAINS).sum(dim=1, keepdim=True)).expand(1, 3, SIDE, SIDE)


def again(part):
    """The same of a part: it is the whole frame here, as PART exceeds it."""
    return mean(part)


def found(offset, cfa=BAYER_RGGB, seed=0, **known):
    measurement = measured(cfa, offset, seed)
    return estimate(measurement, mean(measurement), GAINS, -1.0, again, DARK, **known)


def rms(x):
    return float(x.square().mean().sqrt())


RNG = torch.Generator().manual_seed(7)
WHITE = 0.3 * NOISE * torch.randn(SIDE, dtype=torch.float64, generator=RNG)
WAVE = 1.0 * NOISE * torch.sin(2 * torch.pi * torch.arange(SIDE, dtype=torch.float64) / 22)
STEP = 0.7 * NOISE * (torch.arange(SIDE, dtype=torch.float64) >= SIDE // 2)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(("offsets", "left"), [(WHITE, 0.65), (WAVE, 0.35), (STEP, 0.3)], ids=["lines", "bands", "halves"])
def test_offsets_are_found_in_their_direction_and_none_in_the_other(cfa, axis, offsets, left):
    lines = found(offsets[:, None] if axis == "rows" else offsets[None], cfa)
    got, other = (lines.rows, lines.columns) if axis == "rows" else (lines.columns, lines.rows)
    assert rms(got - offsets) < left * rms(offsets)
    assert not other.any()


def test_lines_are_known_as_well_as_their_exact_posterior_allows():
    """With their true variance, K of the frame and white noise its own is T / (1 + K T W / s^2) at each frequency."""
    strength, generator = float(WHITE.square().mean()), torch.Generator().manual_seed(5)
    exact = (strength / (1 + (1 - KEPT[:, 0]) * strength * SIDE / NOISE**2)).mean()
    errors = []
    for seed in range(10):
        offsets = strength**0.5 * torch.randn(SIDE, dtype=torch.float64, generator=generator)
        errors.append((found(offsets[:, None], seed=seed).rows - offsets).square().mean())
    assert 0.7 * exact < torch.stack(errors).mean() < 1.4 * exact


def test_rows_are_news_only_if_they_are_louder_than_the_noise_model_knows():
    std = rms(WHITE)
    assert not found(WHITE[:, None], rows=std).rows.any()
    assert rms(found(WHITE[:, None], rows=std / 3).rows - WHITE) < 0.65 * std


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_without_offsets_keeps_everything(seed):
    lines = found(torch.zeros(1), seed=seed)
    assert not lines.rows.any()
    assert not lines.columns.any()


def test_a_fence_is_no_offset():
    """Vertical posts that do not cross the whole frame, three times as strong as the noise."""
    light, noise = shot(3)
    fence = 3 * NOISE * (torch.arange(SIDE) % 17 < 3) * (torch.arange(SIDE)[:, None] > SIDE // 3)
    mask = torch.from_numpy(masks(BAYER_RGGB, (SIDE, SIDE)))[None]
    measurement = Measurement(mask * GAINS * (light + noise + fence), mask, NOISE * torch.ones(1, 3, SIDE, SIDE).double() * GAINS)
    lines = estimate(measurement, mean(measurement), GAINS, -1.0, again, DARK)
    assert rms(lines.columns) < 0.15 * rms(fence)


def test_the_lower_half_is_right_unless_its_light_would_be_negative():
    """A frame tells how far its halves are apart. Black is at -1 in the first case, where all light is positive, and at 0 in the second."""
    measurement = measured(BAYER_RGGB, STEP[None] - 2.0)
    high = estimate(measurement, mean(measurement), GAINS, -10.0, again, DARK).columns
    assert float(high[: SIDE // 2].abs().max()) == 0
    assert float(high[-1]) == pytest.approx(float(STEP[-1]), rel=0.3)
    low = estimate(measurement, mean(measurement), GAINS, 0.0, again, DARK).columns
    assert float(low[SIDE // 2 :].abs().max()) < 1e-12
    assert float(low[0]) == pytest.approx(-float(STEP[-1]), rel=0.3)


def test_the_response_is_measured_as_it_is():
    measurement = measured(BAYER_RGGB, torch.zeros(1))
    told = response(measurement, again, GAINS)
    frequency = np.array([0.1, 0.3, 0.9])
    np.testing.assert_allclose(told(frequency), 1 - 1 / (1 + (frequency / 0.15) ** 1.5), atol=0.06)


def test_the_response_falls_with_the_period_and_has_a_floor():
    fractions = Response(0.2, 1.3, np.zeros((3, 5)), np.ones(5))(np.linspace(0, 1, 50))
    assert (np.diff(fractions) >= 0).all()
    assert 0 < fractions[0] < fractions[-1] < 1


def test_small_and_bright_frames_are_left_alone():
    noise, shape = PoissonGaussian(1e-4, 4e-4), (LEAST_SIDE, 100)
    assert worth_it(np.full(shape, 1e-3), noise)
    assert not worth_it(np.full(shape, 1e-2), noise)
    assert not worth_it(np.full((LEAST_SIDE - 1, 100), 1e-3), noise)
    assert worth_it(np.full((3, *shape), 1e-3), noise)


def test_lines_without_a_site_are_left_alone():
    measurement = measured(BAYER_RGGB, WHITE[:, None])
    mask = measurement.mask.clone()
    mask[..., 5, :] = 0
    blind = Measurement(measurement.y * mask, mask, measurement.s)
    assert not estimate(blind, mean(blind), GAINS, -1.0, again, DARK).rows.any()


@pytest.mark.parametrize("offsets", [WHITE, WAVE, STEP], ids=["lines", "bands", "halves"])
def test_what_is_louder_than_the_noise_in_the_dark_is_light(offsets):
    measurement = measured(BAYER_RGGB, offsets[None])
    light, size = mean(measurement), rms(offsets)
    assert estimate(measurement, light, GAINS, -1.0, again, PoissonGaussian(1e-6, 3 * size))
    assert not estimate(measurement, light, GAINS, -1.0, again, PoissonGaussian(1e-6, 0.3 * size))


def test_what_was_taken_off_before_is_part_of_what_is_found():
    """Found in one go or in two: the second asks what the frame shows of what is left, and tells the sum."""
    whole = found(WHITE[:, None]).rows
    part = Lines(0.8 * whole, torch.zeros(SIDE, dtype=torch.float64))
    both = found(WHITE[:, None] - part.rows[:, None], before=part).rows
    assert rms(both - whole) < 0.1 * rms(whole)
