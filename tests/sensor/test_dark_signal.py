"""Darks of several times: what does not change with the time and what grows with it are told apart, and times in between are met."""

from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import XTRANS
from lowlight_kedro.sensor.dark_signal import choose_darks, dark_map_at, dark_signal, digest_of_fitting, known
from tests.sensor.test_dark_map import NOISE, PARTS, RANGE, SHAPE, cost, frame, measured

WHOLE = slice(0, SHAPE[0])


@pytest.fixture(scope="module")
def sensor():
    """Bias, and dark current per second: columns and black level that stay, half of the columns, glow and hot sites that grow."""
    rng = np.random.default_rng(1)
    bias = PARTS["columns"](rng) + PARTS["black"](rng)
    current = (PARTS["glow"](rng) + PARTS["hot"](rng) + PARTS["columns"](rng)) / 30
    return lambda seconds: bias + seconds * current


@pytest.fixture(scope="module")
def maps(sensor):
    rng = np.random.default_rng(2)
    return [measured(sensor(seconds), 4, rng, exposure_s=seconds) for seconds in (2.0, 30.0)]


@pytest.mark.parametrize("seconds", [1.0, 8.0, 15.0, 60.0])
def test_a_frame_of_another_time_is_met_better_by_a_line_than_by_scaling(seconds, sensor, maps, request):
    shown = sensor(seconds)
    dark = frame(shown, np.random.default_rng(3), exposure_s=seconds)
    by_line = choose_darks([known(one) for one in maps], "Acme One", 1600, seconds, SHAPE).darks.map
    assert by_line.exposure_s == seconds
    nearest = min(maps, key=lambda one: abs(np.log(one.exposure_s / seconds)))
    line, scaled = (dark_signal(one, dark, NOISE) for one in (by_line, nearest))
    off = [np.sqrt(np.square((one.signal * RANGE - shown).ravel()).mean()) for one in (line, scaled)]
    assert off[0] < 0.9 * off[1]
    assert cost(line, shown) < (0.06 if seconds <= 30 else 0.2)


def test_what_it_says_it_does_not_know_is_what_it_is_off_by():
    """Columns and black level, rms over draws of sensor and darks, at twice the longest time."""
    off, told = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        bias, current = (PARTS["columns"](rng) + PARTS["black"](rng) for _ in range(2))
        darks = [measured(bias + seconds / 30 * current, 2, rng, exposure_s=seconds) for seconds in (2.0, 30.0)]
        found = dark_map_at(darks, 60.0)
        off.append(np.square(found.shared(WHOLE) - bias - 2 * current).mean())
        told.append(found.shared_std**2)
    assert np.sqrt(np.mean(off) / np.mean(told)) == pytest.approx(1, abs=0.5)


def test_times_that_lie_close_together_do_no_harm(sensor):
    rng = np.random.default_rng(5)
    near = [measured(sensor(seconds), 1, rng, exposure_s=seconds) for seconds in (20.0, 30.0)]
    by_line, single = dark_map_at(near, 25.0), near[1]
    dark = frame(sensor(25.0), rng, exposure_s=25.0)
    assert cost(dark_signal(by_line, dark, NOISE), sensor(25.0)) < 1.1 * cost(dark_signal(single, dark, NOISE), sensor(25.0))


def test_what_does_not_grow_stays_however_far_the_frame_is_from_the_darks():
    rng = np.random.default_rng(6)
    bias = PARTS["columns"](rng)
    found = dark_map_at([measured(bias, 2, rng, exposure_s=seconds) for seconds in (20.0, 30.0)], 300.0)
    assert np.square(found.shared(WHOLE) - bias).mean() < 1


def test_a_site_that_only_long_darks_show_starts_from_nothing(maps):
    """Hot at 30 s, not to be seen at 2 s: half of it at 15 s, and some doubt."""
    only = np.setdiff1d(maps[1].sites, maps[0].sites)
    found = dark_map_at(maps, 15.0)
    at, seen = np.searchsorted(found.sites, only), np.searchsorted(maps[1].sites, only)
    bright = maps[1].excess[seen] > 40
    ratio = found.excess[at][bright] / maps[1].excess[seen][bright]
    assert bright.sum() > 3
    assert np.median(ratio) == pytest.approx(0.5, abs=0.06)
    assert (found.excess_std[at] > 0).all()


def test_torn_darks_of_one_time_leave_those_of_the_other(maps):
    def torn():
        raise ValueError("dark a.dng is left out: it is torn")

    broken = replace(known(maps[0]), measure=torn)
    assert choose_darks([broken, known(maps[1])], "Acme One", 1600, 8.0, SHAPE).darks.map is maps[1]
    with pytest.raises(ValueError, match="it is torn"):
        choose_darks([broken, replace(known(maps[1]), measure=torn)], "Acme One", 1600, 8.0, SHAPE).darks.map  # noqa: B018


def test_the_digest_is_of_all_darks_that_are_taken_off_and_of_no_others(maps):
    short, long = (replace(known(one), digest=lambda name=name: name) for one, name in zip(maps, ("short", "long"), strict=True))
    other = replace(short, iso=800.0, digest=lambda: "other")
    about = {"camera": "Acme One", "iso": 1600.0, "exposure_s": 30.0, "height": SHAPE[0], "width": SHAPE[1]}
    assert digest_of_fitting([short, other, long], about) == "long"
    assert digest_of_fitting([short, other, long], about | {"exposure_s": 8.0}) == "short long"
    assert digest_of_fitting([other], about) is None
    assert digest_of_fitting([], about) is None


def test_what_makes_no_line_is_told(maps):
    with pytest.raises(ValueError, match="needs darks of two exposure times, got 30, 30 s"):
        dark_map_at([maps[1], maps[1]], 3.0)
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="different colour filters"):
        dark_map_at([maps[0], measured(np.zeros(SHAPE), 1, rng, cfa=XTRANS, exposure_s=30.0)], 3.0)
