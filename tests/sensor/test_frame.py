from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.sensor.cfa import XTRANS
from lowlight_kedro.sensor.frame import balanced, crop, normalise
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
