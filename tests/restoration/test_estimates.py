"""Mean, draw and mean of draws of one exposure, with their standard deviation in linear light."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lowlight_kedro.diffusion.memory import LiveBytes
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.estimates import (
    estimate,
    expected_evaluations,
    light_std,
    missing_capability,
    running_moments,
)
from lowlight_kedro.restoration.guidance import GUIDANCE, diffpir, noise_map, vamp
from lowlight_kedro.restoration.guidance.posterior import Posterior, capabilities
from lowlight_kedro.restoration.lines import Lines
from lowlight_kedro.restoration.measurement import smoothed
from lowlight_kedro.restoration.observation import Exposure, Learned, Observation
from lowlight_kedro.restoration.offsets import shift
from lowlight_kedro.restoration.passes import mean, refreshes_of
from lowlight_kedro.restoration.settings import Probing, Sampling, Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.tiles import from_tile_domain
from tests.diffusion.gaussian import Gaussian

CPU = torch.device("cpu")
SCALING = Scaling(-0.4, 0.3)
SAMPLING = Sampling("heun", evaluations=15, sigma_min=0.01, sigma_max=3.0, draws=3)
PROBING = Probing(probes=2, spacing=5, reach=2, step=0.5)
PRIOR = Gaussian.smooth((3, 6, 6))


class Counter:
    """The exact denoiser, counted."""

    def __init__(self):
        self.evaluations = 0

    def __call__(self, x, sigma):
        self.evaluations += 1
        return PRIOR.denoiser(x.double(), sigma.double()).to(x)


def exposure():
    signal = np.random.default_rng(0).uniform(0.1, 0.4, (6, 6)).astype(np.float32) / 10
    return Exposure(signal, BAYER_RGGB, (2.0, 1.0, 1.5), 10.0, CameraNoise(1e-4, 3e-3, row_noise=1e-4))  # rows: there is something to learn


def observed(shot):
    return Observation(shot, SCALING, CPU, Structure())


def restored(kind, guidance=noise_map, *, denoiser=None, name="a", seed=0, sampling=SAMPLING, probing=PROBING):
    return estimate(
        kind, observed(exposure()), denoiser or Counter(), guidance, name=name, seed=seed, refreshes=1, sampling=sampling, probing=probing,
    )  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 8])
def test_running_moments_are_the_moments(count):
    draws = np.random.default_rng(0).normal(1000, 0.1, (count, 3, 4, 5))  # far from 0: sums of squares would lose it
    before = draws.copy()
    mean, std = running_moments(lambda number: draws[number], count)
    np.testing.assert_allclose(mean, draws.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, draws.std(0, ddof=1), rtol=1e-6)
    np.testing.assert_array_equal(draws, before)


def test_the_mean_of_k_draws_loses_what_theory_says():
    """Mean squared error (1 + 1/K) times that of the exact mean: truth and draws are of one distribution."""
    rng, sizes = np.random.default_rng(0), 40000
    truth = rng.normal(0, 1, sizes)
    for count in (1, 2, 8):
        draws = rng.normal(0, 1, (count, sizes))
        mean = running_moments(lambda number, draws=draws: draws[number], count)[0] if count > 1 else draws[0]
        assert np.mean((mean - truth) ** 2) == pytest.approx(1 + 1 / count, rel=5 * (2 / sizes) ** 0.5)


def test_mean_of_k_is_that_of_its_draws_and_each_draw_has_its_own_seed():
    one = restored("sample").light
    two = restored("mean_of_k", sampling=replace(SAMPLING, draws=2))
    second = 2 * two.light - one  # what the mean says of draw 1
    np.testing.assert_allclose(two.std, np.abs(one - second) / 2**0.5, atol=1e-6)
    assert two.std.min() >= 0
    assert two.std.mean() > 1e-3
    assert two.std_from == "2 draws"


@pytest.mark.parametrize("kind", ["sample", "mean_of_k"])
def test_draws_follow_seed_and_name_of_the_frame(kind):
    first = restored(kind).light
    np.testing.assert_array_equal(first, restored(kind).light)
    assert not np.allclose(first, restored(kind, name="b").light)
    assert not np.allclose(first, restored(kind, seed=1).light)


def test_draws_and_probes_agree_about_the_spread():
    """Two ways to the same number, in the same units."""
    draws = restored("mean_of_k", sampling=replace(SAMPLING, draws=40, evaluations=31)).std
    probes = restored("mean", probing=replace(PROBING, probes=20)).std
    assert probes.mean() == pytest.approx(draws.mean(), rel=0.12)


def test_a_standard_deviation_has_the_units_of_light():
    x = torch.randn(1, 3, 2, 2)
    slope = from_tile_domain(SCALING.to_tile(x + 1)) - from_tile_domain(SCALING.to_tile(x))
    np.testing.assert_allclose(light_std(torch.ones_like(x), SCALING), slope[0], rtol=1e-5)


def at_once(side, kind, probes):
    """Bytes per pixel of tensors, denoiser aside, that a restoration holds at once."""
    signal = np.random.default_rng(0).uniform(0, 0.04, (side, side)).astype(np.float32)
    shot = Exposure(signal, BAYER_RGGB, (2.0, 1.0, 1.5), 10.0, CameraNoise(1e-4, 3e-3, row_noise=1e-3))
    with LiveBytes() as found:
        estimate(
            kind, observed(shot), lambda x, sigma: x.clone(), noise_map, name="a", seed=0, refreshes=1, sampling=SAMPLING,
            probing=replace(PROBING, probes=probes, reach=8),
        )  # fmt: skip
    return found.peak / side**2


def test_a_mean_with_its_standard_deviation_takes_nine_frames_at_once():
    """y, mask, s, the mean, the same measurement moved, its level for the prior, and the answer: 108 bytes; here strips count for more."""
    assert at_once(640, "mean", 1) < 128


GUIDANCES = {
    "noise_map": noise_map, "diffpir": diffpir, "vamp": partial(vamp, iterations=2),
    "vamp with a table": partial(vamp, iterations=2, gain=[(1.0, 0.5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", GUIDANCES)
@pytest.mark.parametrize("kind", ["mean", "sample", "mean_of_k"])
@pytest.mark.parametrize("probes", [0, 2])
def test_the_evaluations_foretold_are_those_made(name, kind, probes):
    denoiser, probing, offered = Counter(), replace(PROBING, probes=probes), capabilities(GUIDANCES[name], Counter())
    if missing_capability(kind, offered) is None:
        restored(kind, GUIDANCES[name], denoiser=denoiser, probing=probing)
        assert denoiser.evaluations == expected_evaluations(kind, offered, refreshes=1, sampling=SAMPLING, probing=probing)


def test_refreshes_of_a_costly_mean_count_as_what_they_are():
    """A draw within its evaluations: what the means before it took is not there for the draw."""
    denoiser = Counter()

    def costly(prior, measurement):
        def mean():
            return prior(prior(measurement.y, measurement.s), measurement.s)

        return replace(noise_map(prior, measurement), mean=mean, mean_evaluations=2)

    restored("sample", costly, denoiser=denoiser, probing=replace(PROBING, probes=0))
    assert denoiser.evaluations == SAMPLING.evaluations


@pytest.mark.parametrize(("kind", "probes", "expected"), [("mean", 0, 2), ("mean", 2, 4), ("sample", 0, 15), ("sample", 2, 18)])
def test_evaluations_are_what_is_told(kind, probes, expected):
    """Mean: 1 + refreshes + probes. Sample: its own, and for the standard deviation one of the mean + probes."""
    denoiser = Counter()
    result = restored(kind, denoiser=denoiser, probing=replace(PROBING, probes=probes))
    assert denoiser.evaluations <= expected
    assert denoiser.evaluations >= expected - (kind == "sample")  # Heun's evaluations are odd or even as its steps are
    assert (result.std is None) == (probes == 0)


def test_what_a_guidance_cannot_tell_is_left_out_with_the_reason():
    result = restored("sample", diffpir)
    assert result.std is None
    assert "does not know the posterior mean" in result.std_from


@pytest.mark.parametrize("name", GUIDANCE)
def test_capabilities_are_asked_without_an_evaluation(name):
    denoiser = Counter()
    offered = capabilities(GUIDANCE[name], denoiser)
    assert denoiser.evaluations == 0
    assert (missing_capability("mean", offered) is None) == (offered.mean is not None)
    assert missing_capability("sample", offered) is None or (offered.draw, offered.denoiser) == (None, None)


def test_a_missing_capability_says_what_to_do():
    nothing = Posterior()
    assert "inference.estimate to sample or mean_of_k" in missing_capability("mean", nothing)
    for kind in ("sample", "mean_of_k"):
        assert "inference.estimate=mean" in missing_capability(kind, nothing)
        assert missing_capability(kind, Posterior(draw=lambda *_: iter(()))) is None
        assert missing_capability(kind, Posterior(denoiser=lambda x, sigma: x)) is None
    assert missing_capability("mean", Posterior(mean=lambda: torch.zeros(1))) is None


class Telling(Counter):
    """One that has learned its spread."""

    def spread(self, x, sigma, mean):
        assert x.shape == sigma.shape == mean.shape
        assert ((x == 0) | (sigma < 80)).all()  # what was not measured is 0, at the level that says so
        return 0.1 * sigma.clamp(max=0.5) + 0 * mean


@pytest.mark.parametrize(("kind", "evaluations"), [("mean", 2), ("sample", 16)])
def test_a_prior_that_tells_its_spread_is_not_probed(kind, evaluations):
    denoiser = Telling()
    result = restored(kind, denoiser=denoiser)
    assert result.std_from == "the prior"
    assert denoiser.evaluations == evaluations
    assert evaluations == expected_evaluations(
        kind, capabilities(noise_map, denoiser), refreshes=1, sampling=SAMPLING, probing=PROBING
    )  # fmt: skip
    assert result.std[0, 0, 1] == pytest.approx(0.05 * SCALING.scale / 2, rel=1e-5)  # red was not measured there
    asked = restored(kind, denoiser=Telling(), probing=replace(PROBING, by="probes"))
    assert asked.std_from == "2 probes of the mean"
    np.testing.assert_array_equal(asked.std, restored(kind).std)
    assert restored(kind, denoiser=Telling(), probing=replace(PROBING, probes=0)).std is None


def test_a_frame_that_teaches_nothing_but_its_noise_level_is_evaluated_once():
    """What the local mean tells is as good, and needs no evaluation."""
    plain = replace(exposure(), noise=PoissonGaussian(1e-4, 3e-3))
    answers = []
    for refreshes in (0, 2):
        denoiser = Telling()
        answers.append(
            estimate(
                "mean", observed(plain), denoiser, noise_map, name="a", seed=0, refreshes=refreshes, sampling=SAMPLING, probing=PROBING
            )
        )
        assert denoiser.evaluations == 1
    np.testing.assert_array_equal(answers[0].light, answers[1].light)
    assert refreshes_of(observed(plain), 2) == 0
    assert refreshes_of(observed(replace(plain, signal=np.where(plain.signal > 0.03, 1.0, plain.signal))), 2) == 2  # clipped
    assert refreshes_of(Observation(plain, SCALING, CPU, Structure(tails_nu=4.0)), 2) == 2


class Seconded(Counter):
    """With a part before second opinions, which is counted alone."""

    def __init__(self):
        super().__init__()
        self.before = 0

    def first(self, x, sigma):
        self.before += 1
        return PRIOR.denoiser(x.double(), sigma.double()).to(x)


def test_only_the_answer_asks_for_second_opinions():
    """What goes before looks at measured values, which they leave as they are."""
    denoiser, plain = Seconded(), replace(exposure(), noise=PoissonGaussian(1e-4, 3e-3))
    mean(observed(exposure()), denoiser, noise_map, refreshes=2)
    assert (denoiser.before, denoiser.evaluations) == (2, 1)
    mean(observed(plain), denoiser, noise_map, refreshes=refreshes_of(observed(plain), 2))
    assert (denoiser.before, denoiser.evaluations) == (2, 2)


def piled(shot):
    """The same cut off at black, with more than a quarter of its sites at the floor."""
    return replace(shot, signal=np.maximum(shot.signal, np.float32(0.02)))


def test_sites_at_a_floor_take_one_more_estimate_that_leaves_the_rows_as_they_are():
    shot, counter = piled(exposure()), Counter()
    observation = observed(shot)
    answer = mean(observation, counter, noise_map, refreshes=1).measurement
    assert counter.evaluations == 3
    none = Learned(observation.spread)
    first = observation.measurement(observation.first(4), none)
    b = observation.learn(first, noise_map(Counter(), first).mean(), none).offsets.b
    y, mask = observation.observed()
    others = mask.bool()
    others.view(-1)[observation.places] = False
    expected = y - mask * shift(b, observation.gains).to(y)
    torch.testing.assert_close(answer.y[others], expected[others])


@pytest.mark.parametrize(("found", "evaluations"), [(0.0, 1), (1e-3, 3)])
def test_a_frame_with_lines_is_evaluated_again_and_without_it_is_done(monkeypatch, found, evaluations):
    plain, asked = replace(exposure(), noise=PoissonGaussian(1e-4, 3e-3)), []

    def estimated(measurement, mean, gains, zero, again, noise, rows, before, std):
        asked.append(before)
        return Lines(torch.full((6,), found), torch.zeros(6))

    monkeypatch.setattr("lowlight_kedro.restoration.lines.estimate", estimated)
    monkeypatch.setattr("lowlight_kedro.restoration.lines.worth_it", lambda signal, noise: True)
    counter = Counter()
    answer = mean(observed(plain), counter, noise_map, refreshes=1).measurement
    assert counter.evaluations == evaluations
    assert [one is None for one in asked] == [True, False][: len(asked)]
    y, mask = observed(plain).observed()
    torch.testing.assert_close(answer.y, y - mask * observed(plain).gains * found)


def test_noise_levels_follow_the_estimate_no_closer_than_training_maps_follow_the_light():
    """Light of one site raises the noise level within twice the reach of the local mean, more the nearer it is."""
    shot, asked = replace(exposure(), noise=CameraNoise(1e-2, 3e-3, row_noise=1e-4)), []
    star = np.full((30, 30), 1e-3, np.float32)
    star[15, 14] = 0.9  # green

    def watching(denoiser, measurement):
        asked.append(measurement.s)
        return noise_map(denoiser, measurement)

    estimate(
        "mean", observed(replace(shot, signal=star)), lambda x, sigma: torch.where(sigma < 80, x, 0), watching, name="a", seed=0,
        refreshes=1, sampling=SAMPLING, probing=replace(PROBING, probes=0),
    )  # fmt: skip
    last = asked[-1][0, 1]
    near, middle, rim, dark = (float(last[15, column]) for column in (14, 18, 22, 24))
    assert near > 1.1 * middle > 1.1 * 1.1 * rim > 1.1 * 1.1 * 1.02 * dark
    assert dark == pytest.approx(float(last[0, 0]), rel=1e-3)


@pytest.mark.parametrize(("found", "error", "evaluations"), [(None, 0.02, 1), (1e-3, 0.02, 2), (1e-3, None, 1)])
def test_a_frame_that_shows_another_black_level_is_evaluated_again_without_it(monkeypatch, found, error, evaluations):
    """Its noise level too is that of the light without it; where nobody knows the noise, it is not asked for."""
    plain = replace(exposure(), noise=PoissonGaussian(1e-4, 3e-3), noise_error=error)
    monkeypatch.setattr("lowlight_kedro.restoration.loudness.blocks_of", lambda *fields: None)
    monkeypatch.setattr("lowlight_kedro.restoration.black.estimate", lambda blocks, noise, known: found and np.full(3, found))
    monkeypatch.setattr("lowlight_kedro.restoration.lines.worth_it", lambda signal, noise: True)
    observation, counter = Observation(plain, SCALING, CPU, Structure(lines=False)), Counter()

    def guidance(denoiser, measurement):
        return replace(noise_map(denoiser, measurement), std=torch.zeros_like)

    answer = mean(observation, counter, guidance, refreshes=1).measurement
    assert counter.evaluations == evaluations
    if evaluations == 2:
        right = Observation(replace(plain, signal=plain.signal - np.float32(found)), SCALING, CPU, Structure(lines=False))
        first = noise_map(Counter(), observation.measurement(observation.first(4))).mean()
        expected = right.measurement(smoothed(first - found * right.gains, 4))
        torch.testing.assert_close(answer.y, expected.y)
        torch.testing.assert_close(answer.s, expected.s)
