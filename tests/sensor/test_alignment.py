"""Pairs of exposures with known shift, ratio and motion through the noise of a Sony A7S II at ISO 1600, and a real bracket."""

import re
from functools import cache
from itertools import product

import numpy as np
import pytest

from lowlight_kedro.datasets.demo import read_photograph
from lowlight_kedro.datasets.raw import read_frame
from lowlight_kedro.sensor.alignment import PairLimits, check_pair, comparable_sites, in_sites, noise_variance
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample, tile_pattern
from lowlight_kedro.sensor.frame import normalise
from lowlight_kedro.sensor.noise import CameraNoise
from lowlight_kedro.sensor.registration import (
    binned,
    jackknife,
    nearest_phase_keeping,
    overlap,
    phase_keeping_shifts,
    robust_line,
    superpixel_size,
)
from lowlight_kedro.sensor.simulate import Camera, scene_light
from tests.conftest import CFAS, SHARED

RANGE = 16383 - 512
NOISE = CameraNoise(1.5301 / RANGE, 6.299 / RANGE, row_noise=0.989 / RANGE, white=None)
LIMITS = PairLimits(max_ratio_error=0.12, max_shift=20, max_moving=0.3)
CAMERA = Camera("ILCE-7SM2", 512, 16383, (0.5, 1.0, 0.6))
MARGIN = 24
BLOCK = (slice(120, 180), slice(200, 260))


@cache
def scene(photograph="astronaut.png", brightness=0.9):
    return scene_light(read_photograph(photograph, 1), CAMERA, brightness)


def recorded(light, cfa, rng):
    """Through noise and the rounding of 14 bits, normalised."""
    return (np.rint(NOISE.sample(sample(light, cfa), rng) * RANGE) / RANGE).astype(np.float32)


def pair(ratio, cfa=BAYER_RGGB, shift=(0, 0), seed=0, moved=None, light=None):
    """Short and long exposure; the long one shows at [y + dy, x + dx] what the short one shows at [y, x]."""
    light, rng = scene() if light is None else light, np.random.default_rng(seed)
    cut = [light[:, MARGIN - dy : light.shape[1] - MARGIN - dy, MARGIN - dx : light.shape[2] - MARGIN - dx] for dy, dx in ((0, 0), shift)]
    short = cut[0].copy()
    if moved is not None:
        short[(slice(None), *BLOCK)] = moved
    return recorded(short / ratio, cfa, rng), recorded(cut[1], cfa, rng)


@pytest.mark.parametrize("cfa", CFAS)
def test_superpixels_hold_the_same_colours_and_no_smaller_ones_do(cfa):
    side = superpixel_size(cfa)
    assert side == (3 if cfa == XTRANS else 2)
    pattern = tile_pattern(np.asarray(cfa), (12, 12))
    for colour in range(3):
        assert np.ptp(binned((pattern == colour).astype(float), side)) == 0


@pytest.mark.parametrize("cfa", CFAS)
def test_shifts_keep_every_site_on_its_colour_and_none_is_nearer(cfa, rng):
    pattern = tile_pattern(np.asarray(cfa), (48, 48))
    for wanted in rng.uniform(-9, 9, (20, 2)):
        dy, dx = nearest_phase_keeping(wanted, cfa)
        here, there = overlap(pattern.shape, (dy, dx), len(cfa))
        np.testing.assert_array_equal(pattern[here], pattern[there])
        np.testing.assert_array_equal(pattern[here][:6, :6], pattern[:6, :6])
        in_phase = [(y, x) for y, x in product(range(-12, 13), repeat=2) if np.array_equal(np.roll(pattern, (-y, -x), (0, 1)), pattern)]
        nearest = min(np.hypot(y - wanted[0], x - wanted[1]) for y, x in in_phase)
        assert np.hypot(dy - wanted[0], dx - wanted[1]) == pytest.approx(nearest)


def test_xtrans_has_a_symmetry_of_half_a_period():
    assert phase_keeping_shifts(XTRANS).tolist() == [[0, 0], [3, 3]]


def test_noise_is_measured_on_the_pair():
    """Per superpixel of four sites: Var = (gain s + read_noise**2) / 4; row noise is not white and not meant."""
    short, long = (binned(part, 2) for part in pair(100))
    measured = noise_variance(short - long / 100, long, np.ones(long.shape, bool))
    level = np.clip(long, 0.02, 0.5)
    expected = (NOISE.gain * level / 100 + NOISE.gain * level / 1e4 + NOISE.read_noise**2) / 4
    inner = (long > 0.05) & (long < 0.5)
    assert np.median(measured[inner] / expected[inner]) == pytest.approx(1, abs=0.1)


CASES = [
    (BAYER_RGGB, 100, (0, 0)), (BAYER_RGGB, 100, (4, -6)), (BAYER_RGGB, 300, (-8, 2)), (CFAS[1], 300, (5, 3)),
    (XTRANS, 100, (6, -6)), (XTRANS, 300, (-3, 9)), (XTRANS, 300, (4, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("cfa", "ratio", "shift"), CASES)
def test_shift_and_ratio_are_recovered_under_noise(cfa, ratio, shift):
    check = check_pair(*pair(ratio, cfa, shift), cfa, ratio, LIMITS)
    assert (check.verdict, check.reason) == ("ok", "")
    assert check.measured_ratio == pytest.approx(ratio, abs=5 * check.ratio_error)
    assert check.ratio_error < 0.02 * ratio
    # a clean peak is found to a quarter of a superpixel at worst: half a step of the search and the window's pull
    found = np.array([check.shift_y + check.residual_y, check.shift_x + check.residual_x])
    assert np.abs(found - shift).max() < 0.25 * superpixel_size(cfa)
    assert (check.shift_y, check.shift_x) == nearest_phase_keeping(found, cfa)


def test_the_standard_error_is_honest():
    """Over 16 draws the ratio misses by one standard error in the root mean square, itself known to 1 / sqrt(32)."""
    checks = [check_pair(*pair(300, seed=seed), BAYER_RGGB, 300, LIMITS) for seed in range(16)]
    deviations = np.array([(check.measured_ratio - 300) / check.ratio_error for check in checks])
    assert 1 - 5 / np.sqrt(32) < np.sqrt(np.mean(deviations**2)) < 1 + 5 / np.sqrt(32)
    assert np.sqrt(np.mean(deviations**2)) > 0.3


def test_the_standard_error_knows_that_neighbours_err_together(rng):
    """Strips of the frame share an error of 2 %: the scatter of 60 slopes is what the jackknife says, not what the residuals say."""
    x, variance = rng.uniform(0.1, 1, 800), np.ones(800)
    slopes, formal, strips = np.transpose([
        (*robust_line(x, y, variance)[::2], jackknife(x, y, variance))
        for y in (x * (1 + 0.02 * rng.normal(size=8)).repeat(100) for _ in range(60))
    ])  # fmt: skip
    # the scatter of 60 slopes is known to 1 / sqrt(120); eight strips leave the jackknife's mean low by some 10 %
    assert np.sqrt(np.mean(strips**2)) / np.std(slopes) == pytest.approx(1, abs=5 / np.sqrt(120))
    assert np.sqrt(np.mean(formal**2)) < 0.5 * np.std(slopes)


def test_an_error_of_the_black_level_does_not_change_the_ratio():
    """2 DN, more than half of the signal of this x300 exposure: a quotient of means would be off by a factor."""
    short, long = pair(300)
    check = check_pair(short + np.float32(2 / RANGE), long, BAYER_RGGB, 300, LIMITS)
    assert check.measured_ratio == pytest.approx(300, abs=5 * check.ratio_error)
    assert check.offset * RANGE == pytest.approx(2, abs=0.1)
    assert long.mean() / (short.mean() + 2 / RANGE) < 270


@pytest.mark.parametrize("ratio", [100, 300])
@pytest.mark.parametrize("photograph", ["astronaut.png", "coffee.png"])
def test_a_still_scene_does_not_move(ratio, photograph):
    for seed, cfa in product(range(3), (BAYER_RGGB, XTRANS)):
        check = check_pair(*pair(ratio, cfa, seed=seed, light=scene(photograph)), cfa, ratio, LIMITS)
        assert check.moving_fraction <= 0.002, (seed, cfa)


@pytest.mark.parametrize("ratio", [100, 300])
@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_a_moved_block_is_found_and_nothing_else(cfa, ratio):
    patch = scene()[:, 40:100, 330:390] + 0.1  # another part of the photograph
    short, long = pair(ratio, cfa, moved=patch)
    check = check_pair(short, long, cfa, ratio, LIMITS)
    moved = ~in_sites(check.static, check.block, short.shape, (0, 0), cfa)
    rows, columns = (-(-part.start // check.block) * check.block for part in BLOCK)
    inside = moved[rows : BLOCK[0].stop - check.block, columns : BLOCK[1].stop - check.block]
    assert inside.mean() > 0.8
    around = moved.copy()
    around[BLOCK[0].start - check.block : BLOCK[0].stop + check.block, BLOCK[1].start - check.block : BLOCK[1].stop + check.block] = False
    whole = (slice(0, moved.shape[0] // check.block * check.block), slice(0, moved.shape[1] // check.block * check.block))
    assert around[whole].mean() <= 0.002
    sites = comparable_sites(short, long, cfa, (0, 0), check.measured_ratio)
    assert sites[BLOCK].mean() < 0.05
    assert sites[200:400, 20:180].mean() > 0.9


def test_saturated_sites_and_what_has_no_partner_are_not_compared():
    short, long = pair(100, shift=(4, -6))
    long = np.minimum(long, 0.8)
    long[60:80, 100:120] = 1.0
    sites = comparable_sites(short, long, BAYER_RGGB, (4, -6), None)
    assert not sites[56:76, 106:126].any()  # what shows there lies 4 lower and 6 to the left in the long exposure
    assert not sites[-4:].any()
    assert not sites[:, :6].any()
    assert sites[90:400, 10:-4].all()


def bad_pairs():
    short, long = pair(100)
    other = pair(100, light=scene("motorcycle_left.png")[:, : scene().shape[1], : scene().shape[2]])[0]
    rows = min(other.shape[0], short.shape[0])
    noise = np.random.default_rng(1).normal(0, NOISE.read_noise, short.shape).astype(np.float32)
    return {
        "wrong exposure time": (short * np.float32(1.2), long, "off by 20%, allowed 12%: wrong exposure time"),
        "another scene": (other[:rows], long[:rows], "no signal|registered|moved"),
        "lens cap": (noise, long, "no signal"),
        "shifted too far": (*pair(100, shift=(18, -20)), r"shifted by 26.9 photosites, allowed 20"),
        "half of it moved": (
            np.where(np.arange(short.shape[1]) < 240, short, short[:, ::-1]),
            long,
            "moved, allowed 30%|parts of the frame changed",
        ),
        "saturated": (short, np.ones_like(long), "too little of the frames is unsaturated"),
        "black": (np.zeros_like(short), long, "no signal"),
        "another size": (short[:-2], long, "differ in size"),
    }


@pytest.mark.parametrize("name", list(bad_pairs()))
def test_pairs_that_do_not_fit_fail_with_a_reason(name):
    short, long, reason = bad_pairs()[name]
    before = short.copy(), long.copy()
    check = check_pair(short, long, BAYER_RGGB, 100, LIMITS)
    assert check.verdict == "failed"
    assert re.search(reason, check.reason), check.reason
    np.testing.assert_array_equal(short, before[0])
    np.testing.assert_array_equal(long, before[1])


@cache
def nikon():
    frames = {number: read_frame(SHARED / f"raw_bracket/sample{number}.dng") for number in (1, 2, 3)}
    signals = {number: normalise(frame) for number, frame in frames.items()}
    cfa = frames[1].cfa
    limits = PairLimits(0.12, 32, 0.3)
    pairs = {(2, 1): 4.0, (1, 3): 4.0, (2, 3): 16.0}
    return signals, cfa, {key: check_pair(signals[key[0]], signals[key[1]], cfa, ratio, limits) for key, ratio in pairs.items()}


def unbiased_ratio(short, long, nominal):
    """Median quotient of sites chosen by the mean of both, so that the choice favours neither."""
    level = (short * nominal + long) / 2
    chosen = (level > 0.15) & (level < 0.7)
    return float(np.median(long[chosen] / short[chosen]))


def test_the_ratios_of_a_real_bracket(bracket):
    """By the headers 4, 4 and 16. A median over unaligned sites chosen by the long exposure gives 3.96, 4.14, 16.5."""
    signals, cfa, checks = nikon()
    for (short, long), tolerance in zip(checks, (0.03, 0.04, 0.2), strict=True):
        check = checks[short, long]
        assert check.verdict == "ok"
        here, there = overlap(signals[short].shape, (check.shift_y, check.shift_x), len(cfa))
        theirs = unbiased_ratio(signals[short][here][::3, ::3], signals[long][there][::3, ::3], check.exposure_ratio)
        assert check.measured_ratio == pytest.approx(theirs, abs=tolerance)
    measured = {key: check.measured_ratio for key, check in checks.items()}
    assert measured[2, 1] == pytest.approx(3.96, abs=0.03)
    assert measured[2, 1] * measured[1, 3] == pytest.approx(measured[2, 3], rel=0.015)  # two steps lead where one does


def test_the_shifts_of_a_real_bracket(bracket):
    """Against scikit-image's registration of the luminance, and around the loop of three frames."""
    from skimage.registration import phase_cross_correlation

    signals, _, checks = nikon()
    found = {key: np.array([check.shift_y + check.residual_y, check.shift_x + check.residual_x]) for key, check in checks.items()}
    for (short, long), shift in found.items():
        ratio = checks[short, long].exposure_ratio
        images = [binned(np.minimum(part, 1), 2)[200:1400, 100:2100] for part in (signals[long], signals[short] * np.float32(ratio))]
        theirs, *_ = phase_cross_correlation(*images, upsample_factor=10)
        np.testing.assert_allclose(shift, 2 * theirs, atol=1.0)
    np.testing.assert_allclose(found[2, 1] + found[1, 3], found[2, 3], atol=1.0)


def test_walkers_are_found_in_a_real_bracket_and_the_church_is_not(bracket):
    signals, cfa, checks = nikon()
    check = checks[2, 1]
    moved = ~in_sites(check.static, check.block, signals[2].shape, (check.shift_y, check.shift_x), cfa)
    assert moved[2620:2800, 1270:1370].mean() > 0.4  # two people
    assert moved[800:2200, 400:1800].mean() < 0.005  # the facade
