"""Row and black-level offsets against exact answers: with a Gaussian prior the joint posterior of light and offsets is known."""

from dataclasses import dataclass

import pytest
import torch

from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.restoration.offsets import Offsets, Spread, _information, _next, estimate, gather, shift
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks
from tests.diffusion.gaussian import Gaussian

SHAPE = (3, 16, 24)
MASK = torch.from_numpy(masks(BAYER_RGGB, SHAPE[1:])).double()[None]
GAINS = torch.tensor([2.0, 1.0, 1.6], dtype=torch.float64).reshape(1, 3, 1, 1)


def design():
    """G (N, H + 3) of the measured values."""
    columns = [shift(unit, GAINS).expand(1, *SHAPE).flatten() for unit in torch.eye(SHAPE[1] + 3, dtype=torch.float64)]
    return torch.stack(columns, dim=1) * MASK.flatten()[:, None]


@dataclass
class Scene:
    """Draws of light, offsets and measurements, and the exact posterior of both."""

    spread: Spread
    left: float = 0.3
    right: float = 0.05
    reach: float = 1.5
    draws: int = 60
    assumed: Spread | None = None  # by the noise model, if it errs

    def __post_init__(self):
        generator = torch.Generator().manual_seed(1)
        self.prior = Gaussian.smooth(SHAPE, reach=self.reach)
        self.s = torch.full((1, *SHAPE), self.left, dtype=torch.float64)
        self.s[..., SHAPE[2] // 2 :] = self.right
        variance = self.spread.variance(self.s)
        self.truth = self.prior.sample(self.draws, generator)
        b = torch.randn(self.draws, len(variance), dtype=torch.float64, generator=generator) * variance.sqrt()
        noise = self.s * torch.randn(self.truth.shape, dtype=torch.float64, generator=generator)
        self.y = MASK * (self.truth + noise) + (b @ design().T).reshape(self.truth.shape)
        self._solve((self.assumed or self.spread).variance(self.s))

    def _solve(self, variance):
        sites = MASK.flatten().nonzero()[:, 0]
        g, cross, around = design()[sites], self.prior.covariance[sites], self.y.flatten(1)[:, sites] - self.prior.mean[sites]
        white = cross[:, sites] + torch.diag(self.s.flatten()[sites] ** 2)
        inverse = torch.linalg.inv(white + g * variance @ g.T)
        self.mean = (self.prior.mean + around @ inverse @ cross).reshape(self.y.shape)
        self.b, self.b_std = around @ inverse @ g * variance, (variance - variance**2 * (g * (inverse @ g)).sum(0)).sqrt()
        self.std = (self.prior.covariance.diag() - (cross * (inverse @ cross)).sum(0)).clamp(min=0).sqrt().reshape(SHAPE)
        self.gain = torch.linalg.solve(white, cross).T
        self.sites = sites

    def denoised(self, y, extra=None):
        """The posterior mean of light, for s alone or with `extra` variance of each photosite."""
        if extra is None:
            return (self.prior.mean + (y.flatten(1)[:, self.sites] - self.prior.mean[self.sites]) @ self.gain.T).reshape(y.shape)
        precision = (MASK / (self.s.square() + extra)).flatten()
        return self.prior.posterior(y.flatten(1), precision)[0].reshape(y.shape)

    def bias(self, x):
        return float(((x - self.mean) / self.std).square().mean().sqrt())

    def estimated(self, steps):
        """Light and offsets after so many steps, each frame by itself."""
        light, found = [], []
        for y in self.y[:, None]:
            offsets, x, z = None, self.denoised(y), y
            for _ in range(steps):
                offsets = estimate(Measurement(z, MASK, self.s), x, self.assumed or self.spread, GAINS, offsets)
                z = y - MASK * shift(offsets.b, GAINS)
                x = self.denoised(z)
            light.append(x)
            found.append(offsets)
        return torch.cat(light), found


@pytest.fixture(scope="module")
def rows():
    return Scene(Spread(rows=0.1))


@pytest.fixture(scope="module")
def smooth():
    return Scene(Spread(rows=0.1), left=0.3, right=0.3, reach=3.0)


def test_gather_is_the_adjoint_of_shift():
    b, field = torch.randn(SHAPE[1] + 3, dtype=torch.float64), torch.randn(1, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close((shift(b, GAINS) * field).sum(), (b * torch.cat(gather(GAINS * field))).sum())


@pytest.mark.parametrize(("scene", "bounds"), [("rows", (0.30, 0.15, 0.07)), ("smooth", (0.20, 0.12, 0.07))])
def test_each_step_comes_closer_to_the_exact_joint_posterior(scene, bounds, request):
    """Bias in posterior standard deviations after 1, 2 and 3 steps; counting rows per photosite leaves 0.35 to 0.55."""
    scene = request.getfixturevalue(scene)
    counted = scene.bias(scene.denoised(scene.y, extra=(GAINS * scene.spread.rows).square()))
    biases = [scene.bias(scene.estimated(steps)[0]) for steps in (1, 2, 3)]
    assert counted > 0.3
    assert all(bias < bound for bias, bound in zip(biases, bounds, strict=True)), biases


def test_the_restored_mean_has_a_smaller_error_than_with_rows_counted_per_photosite(rows):
    counted = (rows.denoised(rows.y, extra=(GAINS * rows.spread.rows).square()) - rows.truth).square().mean()
    exact = (rows.mean - rows.truth).square().mean()
    got = (rows.estimated(2)[0] - rows.truth).square().mean()
    assert got - exact < 0.1 * (counted - exact)


def test_the_offsets_come_with_their_posterior_spread(rows):
    """Draws of them: mean b, standard deviation near the exact one."""
    _, found = rows.estimated(2)
    told = torch.stack([offsets.curvature.rsqrt()[: SHAPE[1]] for offsets in found]).mean(0)
    assert float((told / rows.b_std[: SHAPE[1]]).mean()) == pytest.approx(1, abs=0.25)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([found[0].draw(generator)[: SHAPE[1]] for _ in range(2000)])
    curvature = found[0].curvature[: SHAPE[1]]
    assert ((draws.mean(0) - found[0].b[: SHAPE[1]]) * curvature.sqrt()).abs().max() < 5 / 2000**0.5
    assert float((draws.var(0) * curvature).mean()) == pytest.approx(1, abs=5 * (2 / 2000 / SHAPE[1]) ** 0.5)


def test_without_row_noise_the_offsets_shrink_as_the_exact_answer_does():
    """The noise model expects rows of 0.1, the frame has none: what is found is less than half, and no more than exact."""
    quiet = Scene(Spread(), draws=20, assumed=Spread(rows=0.1))
    found = torch.stack([offsets.b for offsets in quiet.estimated(3)[1]]).square().mean().sqrt()
    assert found < 0.05
    assert found < 1.1 * quiet.b.square().mean().sqrt()


def test_offsets_that_the_noise_model_does_not_have_stay_zero(rows):
    _, found = rows.estimated(2)
    assert all(bool((offsets.b[-3:] == 0).all()) for offsets in found)
    assert not Spread()


def test_a_black_level_error_is_taken_off_as_far_as_the_prior_can_tell():
    scene = Scene(Spread(black=0.2), reach=1.0)
    counted = scene.bias(scene.denoised(scene.y, extra=(GAINS * 0.2).square()))
    biases = [scene.bias(scene.estimated(steps)[0]) for steps in (1, 2, 3)]
    assert biases[0] < 0.6 * counted
    assert biases[1] < 0.2 * counted
    assert biases[2] < 0.05 * counted


def test_strips_do_not_show(rows, monkeypatch):
    told = []
    for height in (1000, 5):
        monkeypatch.setattr("lowlight_kedro.restoration.measurement.STRIP", height)
        told.append(estimate(Measurement(rows.y[:1], MASK, rows.s), rows.mean[:1], Spread(0.1, 0.1), GAINS).b)
    torch.testing.assert_close(*told)


def test_scores_that_offsets_and_noise_cannot_explain_shrink_the_step():
    """Then it is the linear least-squares estimate, T score / E[score^2] in units of the information."""
    gram, variance = torch.full((50,), 4.0, dtype=torch.float64), torch.full((50,), 0.25, dtype=torch.float64)
    score = 20.0 * torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    excess = (score.square() / gram).mean()
    torch.testing.assert_close(score / (1 / variance + _information(score, gram, variance)), score * 0.25 / excess)


def test_conjugate_gradients_end_after_as_many_steps_as_there_are_offsets():
    generator = torch.Generator().manual_seed(0)
    root, right = torch.randn(4, 4, dtype=torch.float64, generator=generator), torch.randn(4, dtype=torch.float64, generator=generator)
    matrix = 3 * torch.eye(4, dtype=torch.float64) + 0.5 * root @ root.T
    step = right / matrix.diag()
    found = Offsets(step, torch.zeros_like(step), right, step, matrix.diag(), right @ step)
    for _ in range(4):
        found = _next(found, right - matrix @ found.b)
    torch.testing.assert_close(found.base, torch.linalg.solve(matrix, right), rtol=1e-8, atol=1e-8)
