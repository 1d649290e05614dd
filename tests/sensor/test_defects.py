"""Hot and dead photosites are found in a single frame; stars, lamps and detail are left alone."""

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.defects import neighbours, outliers, warm
from lowlight_kedro.sensor.noise import PoissonGaussian

CFAS = {"bayer": BAYER_RGGB, "xtrans": XTRANS}
NOISE = PoissonGaussian(9.6e-5, 4e-4)  # Sony A7S II, ISO 1600
SHAPE = (330, 366)  # no whole number of strips, whole periods


def night(rng, cfa, stars=None):
    """A dark sky with a glow, and points of light (row, column, FWHM, peak)."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = 0.002 + 0.003 * rows / SHAPE[0] + 0.001 * np.sin(columns / 40)
    light = np.stack([0.6 * sky, sky, 0.8 * sky])
    for row, column, fwhm, peak in stars if stars is not None else ():
        sd = fwhm / np.sqrt(8 * np.log(2))
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sd**2))
        light += np.reshape([0.5, 1.0, 0.7], (3, 1, 1)) * peak * spot  # white stars through a camera's filters
    return NOISE.sample(sample(light, cfa), rng).astype(np.float32)


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
def test_neighbours_are_the_nearest_of_the_same_colour(cfa):
    for row in range(len(cfa)):
        for column in range(len(cfa)):
            found = neighbours(cfa, row, column)
            assert 8 <= len(found) <= 14
            assert {cfa[(row + dy) % len(cfa)][(column + dx) % len(cfa)] for dy, dx in found} == {cfa[row][column]}


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
def test_hot_and_dead_sites_are_found_and_no_others(cfa):
    rng = np.random.default_rng(0)
    signal = night(rng, cfa)
    assert not outliers(signal, cfa, NOISE).any()
    wrong = rng.random(SHAPE) < 1e-3
    hot = wrong & (rng.random(SHAPE) < 0.8)
    broken = np.where(hot, signal + 0.03 + rng.exponential(0.05, SHAPE).astype(np.float32), np.where(wrong, -0.02, signal))
    found = outliers(broken.astype(np.float32), cfa, NOISE)
    assert (found & ~wrong).sum() <= 0.1 * wrong.sum()
    assert (found & wrong).sum() > 0.9 * wrong.sum()


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
@pytest.mark.parametrize("fwhm", [1.3, 1.6, 3.0])
def test_points_of_light_are_no_defects(cfa, fwhm):
    """Eighty stars at any place within a pixel, from faint to brighter than white."""
    rng = np.random.default_rng(1)
    places = np.mgrid[20:310:40, 20:350:35].reshape(2, -1).T + rng.uniform(-3, 3, (80, 2))
    stars = [(row, column, fwhm, peak) for (row, column), peak in zip(places, np.geomspace(0.01, 2, 80), strict=True)]
    assert not outliers(night(rng, cfa, stars), cfa, NOISE).any()


def test_fine_detail_is_no_defect():
    """Lines, a checkerboard and single bright pixels among others as bright."""
    rng = np.random.default_rng(2)
    light = np.full((3, *SHAPE), 0.1)
    light[:, ::7], light[:, :, ::11] = 0.6, 0.3
    light[:, 100:200, 100:200] = rng.uniform(0.05, 0.9, (100, 100))
    found = outliers(NOISE.sample(sample(light, BAYER_RGGB), rng).astype(np.float32), BAYER_RGGB, NOISE)
    assert found.mean() < 2e-5


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
def test_specks_among_other_specks_are_no_defects(cfa):
    """Foliage in the sun, smaller than a lens draws: single pixels of any colour, far above their neighbours, one in three."""
    rng = np.random.default_rng(3)
    specks = (rng.random(SHAPE) < 0.3) * rng.uniform(0.05, 0.6, (3, *SHAPE))
    signal = NOISE.sample(sample(0.01 + specks, cfa), rng).astype(np.float32)
    assert outliers(signal, cfa, NOISE).sum() <= 3
    hot = rng.random(SHAPE) < 1e-3
    found = outliers(np.where(hot, np.float32(3.0), signal), cfa, NOISE)  # these stand out of the specks too
    assert (found & hot).sum() > 0.8 * hot.sum()


def test_what_is_not_blown_among_blown_sites_is_not_dead():
    """A bright sky, a little above white, in which single sites stay below it, and tips of twigs with a neighbour that is nearly white."""
    rng = np.random.default_rng(4)
    signal = np.minimum(NOISE.sample(np.full(SHAPE, 1.1), rng), 1).astype(np.float32)
    signal[40:300:20, 40:300:20] = 0.85
    signal[50:300:20, 40:300:20], signal[52:300:20, 40:300:20] = 0.7, 0.96
    assert not outliers(signal, BAYER_RGGB, NOISE).any()
    signal[signal == 1] = 0.99
    assert outliers(signal, BAYER_RGGB, NOISE).sum() >= 100


def sparse_stars(rng, fwhm):
    """Eighty stars at any place within a pixel, from five standard deviations of the noise up."""
    places = np.mgrid[20:310:40, 20:350:35].reshape(2, -1).T + rng.uniform(-3, 3, (80, 2))
    return [(row, column, fwhm, peak) for (row, column), peak in zip(places, np.geomspace(0.003, 0.3, 80), strict=True)]


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
def test_warm_sites_are_found_where_there_are_many_and_few_others_with_them(cfa):
    """One site in a hundred, by four standard deviations on average: those that stand out by five are found."""
    rng = np.random.default_rng(5)
    signal, wrong = night(rng, cfa), rng.random(SHAPE) < 1e-2
    warm = np.where(wrong, rng.exponential(0.0025, SHAPE), 0).astype(np.float32)
    found, clear = outliers(signal + warm, cfa, NOISE), warm > 5 * np.sqrt(NOISE.variance(signal))
    assert (found & clear).sum() > 0.75 * clear.sum()
    assert (found & ~wrong).sum() < 0.15 * found.sum()


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
@pytest.mark.parametrize("fwhm", [1.3, 3.0])
def test_stars_among_warm_sites_keep_their_light(cfa, fwhm):
    rng = np.random.default_rng(6)
    stars, wrong = sparse_stars(rng, fwhm), rng.random(SHAPE) < 3e-3
    signal = night(rng, cfa, stars) + (wrong * rng.exponential(0.01, SHAPE)).astype(np.float32)
    found = outliers(signal, cfa, NOISE)
    assert (found & wrong).sum() > 0.5 * wrong.sum()
    taken = [found[round(row), round(column)] & ~wrong[round(row), round(column)] for row, column, *_ in stars]
    assert sum(taken) <= 8
    assert sum(taken[len(taken) // 3 :]) == 0  # of those above 20 standard deviations


@pytest.mark.parametrize("cfa", CFAS.values(), ids=CFAS)
def test_two_hot_sites_side_by_side_are_found(cfa):
    rng = np.random.default_rng(7)
    signal = night(rng, cfa)
    pairs, single = np.zeros(SHAPE, bool), rng.random(SHAPE) < 1e-3
    pairs[20:300:40, 20:340:40] = pairs[20:300:40, 21:341:40] = True
    found = outliers(np.where(pairs | single, signal + np.float32(0.05), signal), cfa, NOISE)
    assert (found & pairs).sum() > 0.7 * pairs.sum()


def test_noise_with_long_tails_on_both_sides_has_no_warm_sites():
    rng = np.random.default_rng(8)
    excess = rng.standard_t(3, SHAPE)
    beside = rng.normal(0, 2, SHAPE)
    assert not warm(excess, beside, beside / 2).any()
    assert not warm(np.where(excess > 0, 1.15 * excess, excess), beside, beside / 2).any()  # one side is 1.5 times as frequent
    assert warm(np.abs(excess), beside, beside / 2).any()


@pytest.mark.parametrize("photons", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("read_noise", [0.1, 0.5, 1.5])
def test_few_photons_are_no_defects(photons, read_noise):
    """Counts far above their mean are more likely than counts as far below; units of one photon's signal."""
    gain, rng = 1e-2, np.random.default_rng(9)
    noise = PoissonGaussian(gain, gain * read_noise)
    dark_to_light = np.linspace(0.2, 1.8, SHAPE[1], dtype=np.float32) * np.ones(SHAPE, np.float32)
    found = outliers(noise.sample(gain * photons * dark_to_light, rng).astype(np.float32), BAYER_RGGB, noise)
    assert found.mean() < 1e-4
