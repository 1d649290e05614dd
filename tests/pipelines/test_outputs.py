"""What a restored frame is shown beside, and where it holds most detail."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from lowlight_kedro.pipelines.inference.options import FullSizeDemosaicer
from lowlight_kedro.pipelines.inference.outputs import detailed_box, scaled_light
from lowlight_kedro.pipelines.preprocessing.options import DemosaicerOptions
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from tests.conftest import WHITE_BALANCE, make_frame

DEMOSAICER = DemosaicerOptions(bayer="malvar2004", xtrans="lmmse")


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS])
def test_a_flat_colour_comes_back_in_white_balance_and_scaled(rng, cfa):
    frame, light = make_frame(rng, cfa, (48, 60)), np.array([0.002, 0.004, 0.003])
    signal = sample(np.broadcast_to((light / WHITE_BALANCE)[:, None, None], (3, 48, 60)), cfa).astype(np.float32)
    scaled = scaled_light(signal, frame, 50.0, DEMOSAICER)
    assert scaled.shape == (3, 48, 60)
    assert np.allclose(scaled, 50 * light[:, None, None], rtol=1e-4)


def test_the_detail_is_where_the_picture_is_busy(rng):
    light = np.full((3, 300, 400), 0.2, np.float32)
    light[:, 150:180, 300:330] += rng.uniform(-0.2, 0.2, (1, 10, 10)).repeat(3, 1).repeat(3, 2)
    box = detailed_box(light, 140, 40)
    assert light[box].shape == (3, 40, 40)
    assert light[box].std() > 0.6 * light[:, 145:185, 295:335].std()


@pytest.mark.parametrize(("shape", "side"), [((50, 640), 200), ((640, 50), 200), ((101, 103), 60)])
def test_the_detail_lies_inside_whatever_the_shape(rng, shape, side):
    light = rng.random((3, *shape)).astype(np.float32)
    inside = light[detailed_box(light, 51, side)]
    assert inside.shape[1:] == (min(side, shape[0]), min(side, shape[1]))


def test_the_detail_at_a_corner_is_as_large_as_elsewhere(rng):
    light = np.zeros((3, 309, 309), np.float32)
    light[:, 280:, 280:] = rng.random((29, 29)) > 0.5
    assert detailed_box(light, 103, 41) == (slice(None), slice(268, 309), slice(268, 309))


def test_a_preview_with_all_pixels_needs_no_detail():
    light = np.zeros((3, 64, 64), np.float32)
    assert detailed_box(light, 64, 32) is None


def test_a_demosaicer_that_shrinks_is_refused():
    with pytest.raises(ValidationError, match=r"choose a demosaicer other than superpixel in inference\.demosaicer"):
        TypeAdapter(FullSizeDemosaicer).validate_python({"bayer": "superpixel", "xtrans": "lmmse"})
