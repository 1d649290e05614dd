"""A made-up sensor with glow, columns and hot sites: a few darks tell what it shows without light, and how well they know it."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from lowlight_kedro.sensor.dark_map import measure_dark_map
from lowlight_kedro.sensor.dark_signal import choose_darks, dark_signal, known
from lowlight_kedro.sensor.frame import Frame, normalise
from lowlight_kedro.sensor.noise import CameraNoise

BLACK, RANGE, SHAPE = 512, 15871.0, (192, 204)
NOISE = CameraNoise(1.53 / RANGE, 6.3 / RANGE, -0.044, 0.99 / RANGE, 0.0, 1 / RANGE, 1.0, -BLACK / RANGE)  # Sony A7S II, ISO 1600
READ = float(NOISE.variance(np.zeros(()))) * RANGE**2  # DN^2
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]


def frame(dark_dn, rng, cfa=BAYER_RGGB, **about) -> Frame:
    signal = NOISE.sample(np.asarray(dark_dn, float) / RANGE, rng)
    given = {"exposure_s": 30.0, "iso": 1600.0, "camera": "Acme One"} | about
    return Frame(
        np.rint(signal * RANGE + BLACK).astype(np.uint16), cfa, np.full((len(cfa),) * 2, BLACK, np.float32), 16383.0,
        white_balance=(2.0, 1.0, 1.6), camera_to_srgb=np.eye(3, dtype=np.float32), **given,
    )  # fmt: skip


PARTS = {
    "glow": lambda rng: 60 * np.exp(-np.hypot(ROWS / SHAPE[0], COLUMNS / SHAPE[1]) / 0.25),
    "columns": lambda rng: np.tile(rng.normal(0, 3, SHAPE[1]), (SHAPE[0], 1)),
    "halves": lambda rng: np.repeat([[0.0, 4.0]], SHAPE[1] // 2, axis=1).repeat(SHAPE[0], axis=0),
    "black": lambda rng: sample(np.broadcast_to(np.reshape([2.0, 3.0, 4.0], (3, 1, 1)), (3, *SHAPE)), BAYER_RGGB),
    "hot": lambda rng: (rng.random(SHAPE) < 1e-3) * rng.exponential(400, SHAPE),
    "warm": lambda rng: (rng.random(SHAPE) < 1e-2) * rng.exponential(40, SHAPE),
}


def bands(rng):
    """Rows that are new in every frame."""
    return np.broadcast_to(6 * np.sin(ROWS * 2 * np.pi / 40 + rng.uniform(0, 2 * np.pi)) + rng.normal(0, 3, (SHAPE[0], 1)), SHAPE)


def measured(shown, count, rng, moving=lambda rng: 0.0, **about):
    darks = [frame(shown + moving(rng), rng, **about) for _ in range(count)]
    found, left_out = measure_dark_map([partial(replace, dark) for dark in darks], [str(number) for number in range(count)])
    assert not left_out
    return found


def cost(dark, shown) -> float:
    """Squared error, weighed as a restoration weighs it, in units of the read noise: what a bright or wrong dark does to a dark frame."""
    return float((np.square(dark.signal * RANGE - shown) / (READ + np.square(dark.std * RANGE))).mean())


@pytest.mark.parametrize("part", PARTS)
def test_four_darks_leave_little_of_what_the_sensor_shows(part):
    """One per cent of the read noise is 0.04 dB in the dark."""
    rng = np.random.default_rng(0)
    shown = PARTS[part](rng)
    dark = dark_signal(measured(shown, 4, rng), frame(shown, rng), NOISE)
    assert np.square(shown).mean() / READ > 0.15
    assert cost(dark, shown) < 0.012


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("moving", [lambda rng: 0.0, bands], ids=["still", "bands"])
def test_darks_of_a_clean_sensor_do_no_harm(count, moving):
    """What is new in every frame is not taken for the sensor's own."""
    rng, clean = np.random.default_rng(3), np.zeros(SHAPE)
    costs = [cost(dark_signal(measured(clean, count, rng, moving), frame(clean, rng), NOISE), clean) for _ in range(6)]
    assert np.mean(costs) < 0.01


@pytest.mark.parametrize("part", PARTS)
def test_one_dark_helps(part):
    rng = np.random.default_rng(2)
    shown = PARTS[part](rng)
    dark = dark_signal(measured(shown, 1, rng), frame(shown, rng), NOISE)
    assert cost(dark, shown) < 0.15 * np.square(shown).mean() / READ


def test_more_darks_know_rows_that_stay():
    rng = np.random.default_rng(3)
    shown = np.tile(rng.normal(0, 3, (SHAPE[0], 1)), SHAPE[1])
    costs = [cost(dark_signal(measured(shown, count, rng), frame(shown, rng), NOISE), shown) for count in (1, 4)]
    assert costs[1] < 0.1 * costs[0]


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
def test_what_is_left_after_the_darks_is_as_loud_as_told(cfa):
    """Frames less their darks have the variance of noise model and darks together: over hot sites, in the glow, and everywhere."""
    rng = np.random.default_rng(4)
    shown = sum(PARTS[part](rng) for part in ("glow", "columns", "hot", "warm"))
    dark = dark_signal(measured(shown, 4, rng, cfa=cfa), frame(shown, rng, cfa), NOISE)
    left = np.stack([dark.taken_off(normalise(frame(shown, rng, cfa))) for _ in range(24)])
    told = float(NOISE.variance(np.zeros(()))) + np.square(dark.std)
    hot, glow = shown > 150, np.hypot(ROWS / SHAPE[0], COLUMNS / SHAPE[1]) < 0.15
    for places, most in ((hot, 1.2), (glow & ~hot, 1.1), (np.ones(SHAPE, bool), 1.1)):
        assert 0.5 < np.square(left).mean(axis=0)[places].mean() / told[places].mean() < most


def test_hot_sites_of_a_single_dark_tell_nothing():
    """Nobody knows whether they are hot or were so once."""
    rng = np.random.default_rng(5)
    shown = np.zeros(SHAPE)
    shown[50, 60] = 300
    dark = dark_signal(measured(shown, 1, rng), frame(shown, rng), NOISE)
    assert dark.std[50, 60] * RANGE > 250
    several = dark_signal(measured(shown, 4, rng), frame(shown, rng), NOISE)
    assert several.std[50, 60] * RANGE < 40
    assert abs(several.signal[50, 60] * RANGE - 300) < 40


def test_a_cosmic_ray_is_no_hot_site_and_a_blinking_one_is_loud():
    rng = np.random.default_rng(6)
    darks = [frame(np.zeros(SHAPE), rng) for _ in range(4)]
    darks[1].mosaic_dn[30, 40] = 9000
    for number, dark in enumerate(darks):
        dark.mosaic_dn[80, 90] = 512 + 200 * (number % 2)
    dark = dark_signal(measure_dark_map([partial(replace, one) for one in darks], list("abcd"))[0], darks[0], NOISE)
    assert dark.signal[30, 40] * RANGE < 100
    assert 90 < dark.std[80, 90] * RANGE < 200


def test_clipped_sites_stay_clipped():
    rng = np.random.default_rng(7)
    dark = dark_signal(measured(np.full(SHAPE, 3.0), 4, rng), frame(0 * ROWS, rng), NOISE)
    signal = np.full(SHAPE, 0.5, np.float32)
    signal[5, 6] = 1
    left = dark.taken_off(signal)
    assert left[5, 6] == 1
    assert left[5, 7] == pytest.approx(0.5 - 3 / RANGE, abs=1 / RANGE)


def test_dark_current_grows_with_the_exposure_and_the_rest_does_not():
    rng = np.random.default_rng(8)
    shown = PARTS["columns"](rng)
    shown[50, 60] += 300
    found = measured(shown, 4, rng)
    half = dark_signal(found, frame(shown, rng, exposure_s=15.0), NOISE)
    assert half.signal[50, 60] * RANGE == pytest.approx(150 + shown[40, 60], abs=12)
    assert half.std[50, 60] * RANGE > 30
    assert np.abs(half.signal[40] * RANGE - shown[40]).mean() < 0.8


def picture(rng):
    return np.kron(rng.uniform(0, 80, (48, 51)), np.ones((4, 4)))


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda rng: 0.3 * RANGE, r"dark 1 is left out: it is no dark: its median is 30% of white, expected at most 5%; .* lens cap"),
        (picture, "dark 1 is left out: it is no dark: it shows a picture in"),
    ],
    ids=["flat", "picture"],
)
def test_what_is_no_dark_is_left_out_by_name(shown, reason):
    rng = np.random.default_rng(9)
    darks = [frame(0 * ROWS, rng), frame(shown(rng) + 0 * ROWS, rng), frame(0 * ROWS, rng)]
    found, left_out = measure_dark_map([partial(replace, dark) for dark in darks], ["0", "1", "2"])
    assert found.frames == ("0", "2")
    (told,) = left_out
    assert re.search(reason, told), told
    with pytest.raises(ValueError, match=reason):
        measure_dark_map([partial(replace, darks[1])], ["1"])


def test_darks_whose_noise_was_cut_off_and_darks_of_another_size_are_left_out():
    rng = np.random.default_rng(10)
    whole = frame(0 * ROWS, rng)
    cut = replace(whole, mosaic_dn=np.maximum(whole.mosaic_dn, BLACK))
    small = replace(whole, mosaic_dn=whole.mosaic_dn[:100])
    found, left_out = measure_dark_map([partial(replace, one) for one in (whole, cut, small)], list("abc"))
    assert found.count == 1
    assert "dark b is left out: its noise is cut off at black" in left_out[0]
    assert "dark c is left out: it has 100 x 204 photosites, the others 192 x 204" in left_out[1]


def test_darks_fit_by_camera_size_and_iso_and_several_times_make_a_line():
    rng = np.random.default_rng(11)
    short, long = (known(measured(np.zeros(SHAPE), 1, rng, exposure_s=seconds)) for seconds in (2.0, 30.0))

    def choice(camera="acme one", iso=1600.0, seconds=30.0, shape=SHAPE):
        return choose_darks([short, long], camera, iso, seconds, shape)

    assert choice().darks is long
    assert choice().warned == ""
    alone = choose_darks([short], "acme one", 1600.0, 3.0, SHAPE)
    assert alone.darks is short
    assert "exposed for 2 s, the frame for 3 s" in alone.warned
    assert choice(seconds=3.0).darks.exposure_s == 3.0
    assert choice(seconds=3.0).warned == ""
    assert "exposed for 60 s, its darks between 2 s and 30 s" in choice(seconds=60.0).warned
    assert choice(seconds=np.nan).darks is not None
    refusals = {
        "darks are of Acme One, the frame is of Zenit": {"camera": "Zenit"},
        "darks are of ISO 1600, the frame has ISO 800": {"iso": 800.0},
        "darks are of ISO 1600, the frame has ISO nan": {"iso": np.nan},
        "darks are of 192 x 204 photosites, the frame has 10 x 12": {"shape": (10, 12)},
    }
    for why, asked in refusals.items():
        assert choice(**asked).darks is None
        assert why in choice(**asked).warned
    assert choose_darks([], "Acme One", 1600, 30, SHAPE).warned == ""
