"""A whole restoration on a Gaussian prior, with the camera's structured noise, against exact and sampled answers."""

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, ndtri_exp

from lowlight_kedro.diffusion.samplers import heun
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.restoration.estimates import posterior_mean, posterior_sample
from lowlight_kedro.restoration.guidance import diffpir, noise_map
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Operator
from lowlight_kedro.restoration.observation import Exposure
from lowlight_kedro.restoration.offsets import Spread, shift
from lowlight_kedro.restoration.settings import Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, masks
from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from tests.diffusion.gaussian import Gaussian

SHAPE, CPU = (3, 12, 14), torch.device("cpu")
SCALING, WHITE_BALANCE = Scaling(0.0, 1.0), (1.25, 1.0, 1.5)
OPERATOR = Operator.of(BAYER_RGGB, WHITE_BALANCE, 1.0, SCALING)
GAINS = torch.tensor(OPERATOR.gains).double().reshape(1, 3, 1, 1)
SITES = np.flatnonzero(masks(BAYER_RGGB, SHAPE[1:]).ravel())
PRIOR = Gaussian.smooth(SHAPE)
FULL = Structure()
PLAIN = Structure(saturation=False, rows=False, black=False)


def camera(**more):
    """Read noise of 0.1 in network units on green, next to no photon noise."""
    return CameraNoise(1e-9, 0.05, **{"white": None, **more})


def denoiser(x, sigma):
    return PRIOR.denoiser(x.double(), sigma.double()).float()


def exposure_of(signal, noise):
    return Exposure(np.asarray(signal, np.float32), BAYER_RGGB, WHITE_BALANCE, 1.0, noise)


def restored(exposure, refreshes=2, structure=FULL):
    light = posterior_mean(exposure, denoiser, SCALING, noise_map, refreshes=refreshes, device=CPU, structure=structure)
    return SCALING.to_network(2 * light.astype(float) - 1)


def joint(spread, read_noise=0.05):
    """Gain matrix, and posterior standard deviation of x0, given the measured values, offsets integrated out."""
    s = (GAINS * read_noise).expand(1, *SHAPE).flatten()[SITES]
    units = torch.eye(SHAPE[1] + 3, dtype=torch.float64) * spread.variance(GAINS.new_empty(1, *SHAPE)).sqrt()[:, None]
    g = torch.stack([shift(unit, GAINS).expand(1, *SHAPE).flatten()[SITES] for unit in units], dim=1)
    cross = PRIOR.covariance[SITES]
    gain = torch.linalg.solve(cross[:, SITES] + torch.diag(s**2) + g @ g.T, cross).T
    return gain.numpy(), (PRIOR.covariance - gain @ cross).diag().sqrt().numpy()


def exact_mean(signal, gain):
    y = OPERATOR.embed(torch.from_numpy(signal)).flatten().numpy()[SITES]
    return (PRIOR.mean.numpy() + gain @ (y - PRIOR.mean.numpy()[SITES])).reshape(SHAPE)


def truths(count):
    return PRIOR.sample(count, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("spread", [Spread(rows=0.05), Spread(rows=0.03, black=0.05)], ids=["rows", "rows and black"])
def test_offsets_are_restored_as_the_exact_joint_posterior_does(spread, rng):
    noise = camera(row_noise=spread.rows, black_error=spread.black)
    channels, (gain, std) = masks(BAYER_RGGB, SHAPE[1:]).argmax(0), joint(spread)
    biases = []
    for truth in truths(4):
        signal = noise.sample(OPERATOR.signal(truth).numpy(), rng, channels)
        exact = exact_mean(signal, gain)
        ways = [(2, PLAIN), (0, FULL), (1, FULL), (2, FULL)]
        errors = [(restored(exposure_of(signal, noise), *way) - exact).ravel() / std for way in ways]
        biases.append([np.square(error).mean() for error in errors])
    counted, alone, once, twice = np.sqrt(np.mean(biases, 0))
    print("offsets", spread, counted, alone, once, twice)
    assert alone == pytest.approx(counted, rel=0.01)
    assert once < 0.6 * counted
    assert twice < 0.3 * counted


@pytest.mark.parametrize("noise", [PoissonGaussian(1e-4, 0.05), camera()])
def test_a_noise_model_without_structure_changes_nothing(noise, rng):
    exposure = exposure_of(rng.uniform(size=SHAPE[1:]), noise)
    assert np.array_equal(restored(exposure), restored(exposure, structure=PLAIN))


def sampled_truncation(signal, level, rng, side=1, sweeps=120, chains=100):
    """E[x0 | y] with clipped values at least at the level, by Gibbs sampling of what they would have been; and standard deviations.

    `side` -1: at most at the level, in the mirror.
    """
    gain, std = joint(Spread())
    s = (GAINS * 0.05).expand(1, *SHAPE).flatten()[SITES].numpy()
    precision = np.linalg.inv(PRIOR.covariance.numpy()[np.ix_(SITES, SITES)] + np.diag(s**2))
    mean = PRIOR.mean.numpy()
    bound = side * (OPERATOR.embed(torch.full(SHAPE[1:], level, dtype=torch.float64)).flatten().numpy()[SITES] - mean[SITES])
    y = side * (OPERATOR.embed(torch.from_numpy(signal)).flatten().numpy()[SITES] - mean[SITES])
    states, total = np.tile(y, (chains, 1)), 0.0
    hit = np.flatnonzero(y >= bound - 1e-6)
    for sweep in range(sweeps):
        for site in hit:
            width = precision[site, site] ** -0.5
            centre = states[:, site] - states @ precision[site] * width**2
            chance = np.log(rng.uniform(size=chains)) + log_ndtr((centre - bound[site]) / width)
            states[:, site] = centre - width * ndtri_exp(chance)
        total = total + states.mean(0) * (sweep >= 30)
    return (mean + side * (gain @ (total / (sweeps - 30)))).reshape(SHAPE), std.reshape(SHAPE), SITES[hit]


@pytest.mark.parametrize(("level", "side"), [(0.65, 1), (0.35, -1)], ids=["white", "black"])
def test_clipped_photosites_are_restored_as_the_one_sided_likelihood_says(level, side, rng):
    noise = camera(white=level) if side > 0 else camera(floor=level)
    biases = []
    for truth in truths(3):
        signal = noise.sample(OPERATOR.signal(truth).numpy(), rng)
        exact, std, hit = sampled_truncation(signal, level, rng, side)
        elsewhere = np.ones(exact.size, bool)
        elsewhere[hit] = False
        errors = [((restored(exposure_of(signal, noise), 2, way) - exact) / std).ravel() for way in (PLAIN, FULL)]
        biases.append([np.square(error[elsewhere]).mean() for error in errors] + [np.square(error[hit]).mean() for error in errors])
    as_measured, ours, as_measured_there, ours_there = np.sqrt(np.mean(biases, 0))
    print("clipped", as_measured, ours, as_measured_there, ours_there)
    assert ours < 0.2
    assert ours < 0.3 * as_measured
    assert ours_there < 0.15 * as_measured_there


@pytest.mark.parametrize("way", ["mean", "sample"])
def test_clipped_photosites_are_never_below_the_level(way, rng):
    noise = camera(white=0.5)
    exposure = exposure_of(noise.sample(OPERATOR.signal(truths(1)[0]).numpy(), rng), noise)
    light = (
        posterior_mean(exposure, denoiser, SCALING, noise_map, refreshes=1, device=CPU) if way == "mean"
        else posterior_sample(
            exposure, denoiser, SCALING, diffpir, sampler=heun, evaluations=7, sigma_min=0.01, sigma_max=3.0, device=CPU,
            generator=torch.Generator().manual_seed(0),
        )
    )  # fmt: skip
    hit = (exposure.signal >= 0.5) & masks(BAYER_RGGB, SHAPE[1:])
    level = 0.5 * np.asarray(WHITE_BALANCE, np.float32)[:, None, None]
    assert hit.sum() > 10
    assert (light - level)[hit].min() > -1e-6


def test_a_blown_lamp_is_neither_dark_nor_coloured(rng):
    """A lamp of known light, two times above white at its centre, on a grey wall: inside it is at least white in every channel."""
    noise = camera(white=0.6)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    lamp = 0.3 + 2.0 * np.exp(-((rows - 5.5) ** 2 + (columns - 7.5) ** 2) / 12)
    unclipped = camera().sample(OPERATOR.signal(torch.from_numpy(2 * np.tile(lamp, (3, 1, 1)) - 1)).numpy(), rng)
    signal = np.minimum(unclipped, 0.6)
    light = (restored(exposure_of(signal, noise)) + 1) / 2
    inside = lamp > 1.4  # all channels clip, neighbours included: the lowest level is 0.6, the highest 0.9
    assert inside.sum() > 10
    for channel, gain in enumerate(WHITE_BALANCE):
        assert light[channel][inside].min() >= 0.6 * gain - 1e-6
    unclipped = (restored(exposure_of(unclipped, noise)) + 1) / 2
    assert np.abs(light - unclipped)[:, lamp < 0.35].mean() < 0.02


@pytest.mark.parametrize("structure", [FULL, Structure(tails_nu=4.0)], ids=["gaussian", "student"])
def test_an_outlier_moves_its_neighbours_less_than_the_noise_does(structure, rng):
    """One photosite 30 standard deviations off: with long tails the mean elsewhere moves by less than one of them."""
    noise = CameraNoise(1e-9, 0.2, white=None)
    signal = noise.sample(OPERATOR.signal(truths(1)[0]).numpy(), rng)
    hot = signal.copy()
    hot[6, 8] += 30 * noise.read_noise
    s = (GAINS * noise.read_noise)[0].numpy()
    moved = np.abs(restored(exposure_of(hot, noise), 2, structure) - restored(exposure_of(signal, noise), 2, structure)) / s
    moved[0, 6, 8] = 0
    print("outlier", moved.max())
    assert (moved.max() < 1) == (structure.tails_nu is not None)


def test_samples_of_light_and_offsets_have_the_spread_of_both(rng):
    """With a guidance that draws exactly, over 150 draws: mean and variance of the exact joint posterior."""
    spread, draws = Spread(rows=0.05), 150
    noise, (gain, std) = camera(row_noise=spread.rows), joint(spread)
    signal = noise.sample(OPERATOR.signal(truths(1)[0]).numpy(), rng)

    # s is the same at all passes: there are next to no photons
    alone, _ = joint(Spread())
    covariance = PRIOR.covariance.numpy() - alone @ PRIOR.covariance.numpy()[SITES]
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(covariance)))

    def exactly(denoiser, measurement):
        def mean():
            y = measurement.y.double().numpy().ravel()[SITES]
            return torch.from_numpy((PRIOR.mean.numpy() + alone @ (y - PRIOR.mean.numpy()[SITES])).reshape(1, *SHAPE)).float()

        def draw(first, evaluations, generator):
            assert evaluations == 3
            noise = torch.randn(len(root), dtype=torch.float64, generator=generator).numpy()
            return iter([mean() + torch.from_numpy((root @ noise).reshape(1, *SHAPE)).float()])

        return Posterior(mean=mean, draw=draw)

    generator = torch.Generator().manual_seed(0)
    options = {
        "sampler": heun,
        "evaluations": 6,
        "sigma_min": 0.01,
        "sigma_max": 3.0,
        "device": CPU,
        "generator": generator,
        "refreshes": 3,
    }
    light = np.stack([posterior_sample(exposure_of(signal, noise), denoiser, SCALING, exactly, **options) for _ in range(draws)])
    x = 2 * light - 1
    bias = (x.mean(0) - exact_mean(signal, gain)).ravel() / std
    ratio = x.reshape(draws, -1).var(0).mean() / np.square(std).mean()
    print("draws", np.sqrt(np.square(bias).mean()), ratio)
    assert np.sqrt(np.square(bias).mean()) < 0.1 + draws**-0.5
    assert ratio == pytest.approx(1, abs=0.1)


def test_a_guidance_without_a_mean_takes_row_offsets_from_the_local_mean(rng):
    """On a flat frame, where the local mean knows the light: the rows do not reach what guidance sees."""
    noise, seen = camera(row_noise=0.1), []

    def watching(denoiser, measurement):
        if measurement.y[0, 0].numel() > 1:  # a pixel only asks what it offers
            seen.append(measurement)
        return diffpir(denoiser, measurement)

    signal = noise.sample(np.full((24, 60), 0.4), rng)
    options = {"sampler": heun, "evaluations": 1, "sigma_min": 0.01, "sigma_max": 3.0, "device": CPU}
    flat = lambda x, sigma: torch.zeros_like(x)  # noqa: E731
    for structure in (FULL, PLAIN):
        posterior_sample(exposure_of(signal, noise), flat, SCALING, watching, generator=torch.Generator(), structure=structure, **options)
    rows = [(m.y.sum(dim=(1, 3)) / m.mask.sum(dim=(1, 3))).std() for m in seen]
    assert rows[0] < 0.5 * rows[1]
    torch.testing.assert_close(seen[0].s.square() + (GAINS * 0.1).square().float(), seen[1].s.square(), rtol=1e-4, atol=0)


def test_the_exposure_is_not_changed(rng):
    noise = camera(white=0.6, row_noise=0.02, black_error=0.02)
    exposure = exposure_of(noise.sample(OPERATOR.signal(truths(1)[0]).numpy(), rng), noise)
    before = exposure.signal.copy()
    light = restored(exposure, structure=Structure(tails_nu=4.0))
    assert np.array_equal(exposure.signal, before)
    assert np.isfinite(light).all()


@pytest.mark.parametrize("tails_nu", [None, 4.0])
def test_a_frame_that_is_clipped_everywhere_stays_finite_and_white(tails_nu):
    noise = camera(white=0.6, row_noise=0.02, black_error=0.02)
    light = (restored(exposure_of(np.full(SHAPE[1:], 0.6), noise), structure=Structure(tails_nu=tails_nu)) + 1) / 2
    assert np.isfinite(light).all()
    for channel, gain in enumerate(WHITE_BALANCE):
        assert light[channel].min() >= 0.6 * gain - 1e-6


@pytest.mark.parametrize("refreshes", [0, 1])
def test_offsets_are_noise_of_each_photosite_only_where_nothing_will_tell_them(refreshes, rng):
    """Without a refresh they are in s; with one they are not, from the first evaluation on."""
    noise, seen = camera(row_noise=0.1), []

    def watching(denoiser, measurement):
        seen.append(measurement.s)
        return noise_map(denoiser, measurement)

    exposure = exposure_of(noise.sample(np.full(SHAPE[1:], 0.4), rng), noise)
    posterior_mean(exposure, denoiser, SCALING, watching, refreshes=refreshes, device=CPU)
    expected = GAINS.float() * (noise.read_noise if refreshes else np.hypot(noise.read_noise, 0.1))
    torch.testing.assert_close(seen[0], expected.expand_as(seen[0]), rtol=1e-3, atol=0)
