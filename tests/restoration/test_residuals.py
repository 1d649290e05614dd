"""Leverage and outliers, against a Gaussian prior's own matrix and against quadrature over Student's t.

What a restoration took away is told from rows, columns and noise that nobody knew of.
"""

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.measurement import Measurement, Operator
from lowlight_kedro.restoration.residuals import leverage, remains_of, student_factor
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from tests.diffusion.gaussian import Gaussian

SHAPE = (3, 8, 8)


@pytest.mark.parametrize("s", [0.1, 0.5])
def test_the_leverage_is_the_mean_diagonal_of_the_denoisers_derivative(s):
    prior, generator, level = Gaussian.smooth(SHAPE), torch.Generator().manual_seed(0), torch.full((1, *SHAPE), s, dtype=torch.float64)
    truth = prior.sample(100, generator)
    y = truth + level * torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    size = prior.covariance.shape[0]
    exact = torch.linalg.solve(prior.covariance + s**2 * torch.eye(size, dtype=torch.float64), prior.covariance).diag().mean()
    told = leverage(Measurement(y, torch.ones_like(y), level.expand(y.shape)), prior.denoiser(y, level))
    assert told == pytest.approx(float(exact), abs=0.02)


def test_the_leverage_ignores_what_is_not_measured_and_bears_a_hot_pixel():
    generator = torch.Generator().manual_seed(0)
    residual = 0.5 * torch.randn(1, 3, 40, 40, generator=generator)
    mask = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    mask[..., ::2] = 1
    hot = residual.clone()
    hot[0, 0, 0, 0] = 1e4
    hot[..., 1::2] = 50.0
    told = [leverage(Measurement(y, mask, torch.ones_like(y)), torch.zeros_like(y)) for y in (residual, hot)]
    assert told[0] == pytest.approx(0.75, abs=0.02)
    assert told[1] == pytest.approx(told[0], abs=0.01)


def test_the_leverage_stays_in_its_range():
    y = torch.full((1, 3, 4, 4), 2.0)
    assert leverage(Measurement(y, torch.ones_like(y), torch.ones_like(y)), torch.zeros_like(y)) == 0
    assert leverage(Measurement(y, torch.ones_like(y), torch.ones_like(y)), y) < 1
    assert leverage(Measurement(y, torch.zeros_like(y), torch.ones_like(y)), y) < 1


def one_site(residual, r, nu, passes):
    """Posterior mean of x ~ N(0, r^2) for y = residual, s = 1, after so many reweightings with the exact leverage."""
    h, factor, y = r**2 / (1 + r**2), None, torch.full((1, 3, 1, 1), residual, dtype=torch.float64)
    for _ in range(passes + 1):
        s2 = torch.ones_like(y) if factor is None else factor
        mean = y * r**2 / (r**2 + s2)
        factor = student_factor(Measurement(y, torch.ones_like(y), s2.sqrt()), mean, h, nu, factor)
    return float(mean[0, 0, 0, 0]), float(factor[0, 0, 0, 0])


@pytest.mark.parametrize("r", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("residual", [0.0, 1.0, 30.0])
def test_the_mean_is_that_of_students_t(r, residual):
    """Within 0.15 of the scale of noise and light, by quadrature; the Gaussian answer to 30 is off by 2.5 to 26."""
    x = np.linspace(-40, 70, 200001)
    weight = np.exp(student.logpdf(residual - x, 4) - x**2 / (2 * r**2))
    exact = (x * weight).sum() / weight.sum()
    assert one_site(residual, r, 4, passes=1)[0] == pytest.approx(exact, abs=0.15 * np.hypot(1, r))


@pytest.mark.parametrize("r", [0.3, 2.5])
def test_reweighting_does_not_drift(r):
    """Because each pass starts from what the *others* say, more passes change nothing."""
    assert one_site(10.0, r, 4, passes=1) == pytest.approx(one_site(10.0, r, 4, passes=5), rel=1e-6)


def test_without_outliers_the_noise_level_stays_as_it_is_on_average():
    generator = torch.Generator().manual_seed(0)
    r, h = 0.5, 0.2
    x = r * torch.randn(1, 3, 100, 100, dtype=torch.float64, generator=generator)
    y = x + torch.randn(x.shape, dtype=torch.float64, generator=generator)
    measurement = Measurement(y, torch.ones_like(y), torch.ones_like(y))
    factor = student_factor(measurement, y * r**2 / (1 + r**2), h, nu=8.0)
    assert float(factor.mean()) == pytest.approx(1, abs=0.03)


FRAME = (120, 144)


def looked_at(cfa, left):
    """Remains where the mean is 0 and the measurement `left`, in standard deviations of its noise."""
    operator = Operator.of(cfa, (2.0, 1.0, 1.6), 10.0, Scaling(0.0, 1.0))
    gains = torch.tensor(operator.gains).reshape(1, 3, 1, 1)
    mask = operator.mask(FRAME)[None]
    s = 0.05 * gains.expand(1, 3, *FRAME)
    return remains_of(Measurement(mask * s * torch.from_numpy(left).float(), mask, s), torch.zeros(1, 3, *FRAME), gains)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_each_fault_has_its_name_and_noise_has_none(cfa, rng):
    noise = rng.normal(size=FRAME)
    rows, columns = rng.normal(0, 0.5, (FRAME[0], 1)), rng.normal(0, 0.5, (1, FRAME[1]))
    fine = looked_at(cfa, noise)
    assert fine.verdict == "good"
    assert fine.mean_square == pytest.approx(1, abs=0.05)
    assert max(fine.rows, fine.columns) < 2.5
    assert looked_at(cfa, noise + rows).verdict.startswith("rows of the sensor stand out")
    assert looked_at(cfa, noise + columns).verdict == "columns of the sensor stand out: take dark frames"
    assert looked_at(cfa, 1.5 * noise).verdict.startswith("2.2 times the noise that was told was taken away")


def test_detail_and_small_frames_are_no_fault():
    """A fence has some frequencies of rows, and not all."""
    rng = np.random.default_rng(1)
    fence = np.sign(np.sin(np.arange(FRAME[0]) * 0.9))[:, None] * 0.5
    assert looked_at(BAYER_RGGB, rng.normal(size=FRAME) + fence).verdict == "good"
    y = torch.zeros(1, 3, 24, 24)
    assert remains_of(Measurement(y, torch.ones_like(y), torch.ones_like(y)), y, torch.ones(1, 3, 1, 1)).verdict == "good"
