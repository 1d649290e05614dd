"""Masked photosites: they tell what the sensor adds to every row and channel, and are believed only where they look like black."""

from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import tile_pattern
from lowlight_kedro.sensor.frame import crop, normalise
from lowlight_kedro.sensor.masked import Rectangle, beside, masked_black, noise_beside, with_masked
from lowlight_kedro.sensor.noise import CameraNoise
from tests.conftest import CFAS, make_frame

SHAPE, LEFT, RIGHT, TOP = (240, 252), 26, 14, 5  # left: no whole period
READ = 6.0
VISIBLE = Rectangle(TOP, LEFT, TOP + SHAPE[0], LEFT + SHAPE[1])
SENSOR = SHAPE[0] + TOP, LEFT + SHAPE[1] + RIGHT


def exposed(rng, cfa=CFAS[0], level=(0.0, 0.0, 0.0), rows=0.0, light=0.02):
    """A frame, the sensor around it (DN), and the offsets of its rows, of standard deviation `rows`; `level` of each channel."""
    offsets = rng.normal(0, rows, SHAPE[0]) if rows else np.zeros(SHAPE[0])
    picture = make_frame(rng, cfa, SHAPE, light=light)
    channels = np.asarray(cfa)[(np.arange(SENSOR[0])[:, None] - TOP) % len(cfa), (np.arange(SENSOR[1]) - LEFT) % len(cfa)]
    dark = 512 + np.asarray(level)[channels]
    dark[TOP:] += offsets[:, None]
    sensor = dark + rng.normal(0, READ, SENSOR)
    inside = np.s_[VISIBLE.top : VISIBLE.bottom, VISIBLE.left : VISIBLE.right]
    sensor[inside] = picture.mosaic_dn + dark[inside] - 512
    sensor = np.rint(sensor).astype(np.uint16)
    return replace(picture, mosaic_dn=sensor[inside].copy()), sensor, offsets


def told(frame, sensor):
    return with_masked(frame, sensor, VISIBLE, beside(sensor.shape, VISIBLE))


@pytest.mark.parametrize("cfa", CFAS)
def test_the_black_level_of_every_channel_is_found_wherever_the_pattern_begins(cfa, rng):
    level = np.array([4.0, 2.0, 3.0])
    frame, sensor, _ = exposed(rng, cfa, level)
    np.testing.assert_allclose(told(frame, sensor).black_level, 512 + level[np.asarray(cfa)], atol=0.6)


def test_loud_rows_are_taken_off_and_what_is_left_is_told(rng):
    frame, sensor, offsets = exposed(rng, rows=4.0)
    found = told(frame, sensor)
    left = found.black_level[:, 0] - 512 - offsets
    assert found.masked.rows_std is not None
    assert left.std() < 0.35 * offsets.std()
    assert found.masked.rows_std == pytest.approx(left.std(), rel=0.25)
    model = CameraNoise(1e-4, READ / 15871, row_noise=4.0 / 15871, black_error=1.0)
    beside_them = noise_beside(model, found)
    assert beside_them.row_noise == pytest.approx(found.masked.rows_std / 15871, rel=1e-3)
    assert beside_them.black_error < 1.0
    np.testing.assert_array_equal(normalise(crop(found, 100, 60, 90, 80)), normalise(found)[100:190, 60:140])


def test_quiet_rows_and_a_right_header_stay_as_they_are(rng):
    """Masked sites that have nothing to tell cost nothing: what is taken for rows is far below their noise."""
    frame, sensor, _ = exposed(rng)
    assert np.abs(told(frame, sensor).black_level - 512).max() < 0.35  # single means: READ / sqrt(40) = 0.95


def test_slow_bands_are_rows_too(rng):
    frame, sensor, _ = exposed(rng, light=0.0)
    bands = np.rint(6 * np.sin(np.arange(SHAPE[0]) / 8)).astype(int)
    sensor[TOP:] = sensor[TOP:] + bands[:, None]
    found = told(replace(frame, mosaic_dn=sensor[VISIBLE.top : VISIBLE.bottom, VISIBLE.left : VISIBLE.right]), sensor)
    assert (found.black_level[:, 0] - 512 - bands).std() < 1.2


def test_rows_that_the_picture_lacks_are_not_taken_off(rng):
    frame, sensor, offsets = exposed(rng, rows=4.0, light=0.0)
    lacking = replace(frame, mosaic_dn=(frame.mosaic_dn - np.rint(offsets)[:, None]).astype(np.uint16))
    assert told(frame, sensor).masked.rows > 3
    assert told(lacking, sensor).masked.rows == 0


STRANGE = {
    "light": lambda sensor, rng: sensor + 300,
    "dummies": lambda sensor, rng: np.full_like(sensor, 512),
    "zeros": lambda sensor, rng: np.zeros_like(sensor),
    "light that leaks in": lambda sensor, rng: sensor + np.linspace(0, 120, sensor.shape[1]).astype(np.uint16),
    "a level above the picture": lambda sensor, rng: sensor + 120,
    "cut off": lambda sensor, rng: np.maximum(sensor, 513),
    "a picture": lambda sensor, rng: np.repeat(rng.integers(500, 700, (1, sensor.shape[1])), len(sensor), 0).astype(np.uint16) + sensor % 9,
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_does_not_look_like_black_is_not_believed(name, rng):
    frame, sensor, _ = exposed(rng, light=0.0 if name == "a level above the picture" else 0.3)
    for part in (np.s_[:, :LEFT], np.s_[:, VISIBLE.right :], np.s_[:TOP]):
        sensor[part] = STRANGE[name](sensor[part], rng)
    assert told(frame, sensor) is frame


def test_leaking_columns_next_to_the_picture_do_not_count(rng):
    frame, sensor, _ = exposed(rng, level=(4.0, 4.0, 4.0))
    before = told(frame, sensor).black_level.mean()
    sensor[:, LEFT - 3 : LEFT] += 10
    assert told(frame, sensor).black_level.mean() == pytest.approx(before, abs=0.3)


def test_a_header_that_knows_more_or_a_black_that_was_subtracted_is_left_alone(rng):
    frame, sensor, _ = exposed(rng, level=(5.0, 5.0, 5.0))
    areas = beside(sensor.shape, VISIBLE)
    by_row = replace(frame, black_level=np.full((SHAPE[0], 2), 512, np.float32))
    subtracted = replace(frame, black_level=tile_pattern(np.zeros((1, 1), np.float32), (2, 2)))
    assert masked_black(sensor, frame, VISIBLE, areas) is not None
    assert masked_black(sensor, by_row, VISIBLE, areas) is None
    assert masked_black(sensor, subtracted, VISIBLE, areas) is None
    assert masked_black(sensor, frame, VISIBLE, []) is None
