from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import XTRANS
from lowlight_kedro.sensor.frame import balanced, checked, crop, normalise, same_white, with_white
from tests.conftest import CFAS, make_frame


def test_normalise_maps_black_to_0_white_to_1_and_keeps_what_is_below_black(rng):
    frame = replace(make_frame(rng), mosaic_dn=np.array([[512, 16383], [500, 8447]], np.uint16))
    np.testing.assert_allclose(normalise(frame), [[0, 1], [-12 / 15871, 0.49997]], atol=1e-5)


def test_normalise_takes_each_channels_own_black_level(rng):
    black = np.array([[100, 200], [300, 400]], np.float32)
    frame = replace(make_frame(rng), mosaic_dn=np.tile(black, (3, 3)).astype(np.uint16), black_level=black)
    np.testing.assert_array_equal(normalise(frame), 0)


@pytest.mark.parametrize("pattern", CFAS)
def test_balancing_makes_grey_equal_in_all_channels(pattern, rng):
    gains = (2.0, 1.0, 1.6)
    raw_grey = np.asarray([1 / gain for gain in gains])[np.asarray(pattern)]
    tiled = np.tile(raw_grey, (4, 4))
    np.testing.assert_allclose(balanced(tiled, pattern, gains), 1, rtol=1e-6)


def test_crop_keeps_the_phase_of_the_pattern(rng):
    frame = make_frame(rng, cfa=XTRANS)
    part = crop(frame, 13, 20, 60, 66)
    np.testing.assert_array_equal(part.mosaic_dn, frame.mosaic_dn[12:72, 18:84])


def test_crop_outside_the_frame_names_both(rng):
    with pytest.raises(ValueError, match=r"\[0, 0, 600, 10\] must lie inside the frame of 512 x 520"):
        crop(make_frame(rng), 0, 0, 600, 10)


def test_crop_keeps_the_phase_of_any_black_pattern(rng):
    frame = make_frame(rng)
    for shape in ((3, 5), (4, 4), frame.mosaic_dn.shape):
        black = rng.uniform(400, 500, shape).astype(np.float32)
        whole = replace(frame, black_level=black)
        np.testing.assert_array_equal(normalise(crop(whole, 14, 22, 60, 66)), normalise(whole)[14:74, 22:88])


NONSENSE = {
    "visible area is 512 x 4": {"mosaic_dn": np.zeros((512, 4), np.uint16)},
    "is neither Bayer .* nor X-Trans": {"cfa": ((1, 1), (0, 2))},
    "white level 520 does not lie above its black level 512": {"white_level": 520.0},
    "white level nan": {"white_level": np.nan},
    "black level nan": {"black_level": np.full((2, 2), np.nan, np.float32)},
    "colour matrix": {"camera_to_srgb": np.full((3, 3), np.nan, np.float32)},
}


@pytest.mark.parametrize("message", NONSENSE)
def test_a_frame_that_cannot_be_a_photograph_is_refused(message, rng):
    frame = make_frame(rng)
    assert checked(frame) is frame
    with pytest.raises(ValueError, match=message):
        checked(replace(frame, **NONSENSE[message]))


def test_a_dark_and_a_bright_exposure_get_one_unit(rng):
    """The brighter one alone shows that the camera saturates at 15800."""
    bright = with_white(make_frame(rng), 15800.0, "measured")
    dark = replace(make_frame(rng), mosaic_dn=(bright.mosaic_dn - 512) // 4 + 512, noise_profile=((4e-4, 1e-6),))
    both = same_white((dark, bright))
    assert [frame.white_level for frame in both] == [15800, 15800]
    np.testing.assert_allclose(normalise(both[1]), 4 * normalise(both[0]), atol=4 / 15288)
    spans = [frame.white_level - 512 for frame in (dark, both[0])]
    slopes, offsets = zip(*(frame.noise_profile[0] for frame in (dark, both[0])), strict=True)
    signals = [normalise(frame) for frame in (dark, both[0])]
    variance = [(slopes[n] * signals[n] + offsets[n]) * spans[n] ** 2 for n in (0, 1)]
    np.testing.assert_allclose(variance[0], variance[1], rtol=1e-5)


def test_without_a_measured_white_the_tags_stay(rng):
    frames = (make_frame(rng), make_frame(rng))
    assert same_white(frames) == frames
