"""The long exposure is laid over the short one."""

from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.evaluation.reference import refer
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.demosaic import demosaic
from lowlight_kedro.sensor.demosaic.interpolation import bilinear
from lowlight_kedro.sensor.frame import crop
from tests.conftest import make_frame


def light_of(frame):
    return demosaic(frame, bilinear)


@pytest.mark.parametrize(("cfa", "shift"), [(BAYER_RGGB, (4, -6)), (BAYER_RGGB, (-8, 2)), (XTRANS, (6, -12)), (XTRANS, (-3, 3))])
@pytest.mark.parametrize("part", [None, (60, 49, 100, 120), (0, 0, 80, 90)])
def test_the_reference_shows_what_the_restored_part_shows(rng, cfa, shift, part):
    """Two windows of one mosaic, `shift` apart: away from the border both demosaic to the same light."""
    whole = make_frame(rng, cfa, (300, 320), light=0.6)
    period, (dy, dx) = len(cfa), shift
    top, left = 4 * period, 4 * period
    short = replace(whole, mosaic_dn=whole.mosaic_dn[top : top + 240, left : left + 252])
    long = replace(whole, mosaic_dn=whole.mosaic_dn[top - dy : top - dy + 240, left - dx : left - dx + 252])
    restored = light_of(crop(short, *part) if part else short)
    reference = refer(short, long, part, (dy + 0.3, dx - 0.3), None, light_of)
    assert reference.light.shape == reference.of(restored).shape
    assert reference.mask.shape == reference.light.shape[1:]
    np.testing.assert_allclose(reference.light[:, 20:-20, 20:-20], reference.of(restored)[:, 20:-20, 20:-20], atol=1e-6)


def test_what_lies_outside_the_long_exposure_is_cut_off(rng):
    frame = make_frame(rng, BAYER_RGGB, (128, 160), light=0.6)
    reference = refer(frame, frame, (0, 0, 60, 70), (-10, 6), None, light_of)
    assert reference.inside == (slice(10, 60), slice(0, 70))
    with pytest.raises(ValueError, match="lies outside the long exposure"):
        refer(frame, frame, (0, 0, 60, 70), (-64, 0), None, light_of)
