"""The mosaic without its noise, as the camera would have recorded it."""

from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.datasets.decoding import read_frame, read_header
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.linear_dng import LinearPicture
from lowlight_kedro.datasets.mosaic_dng import MosaicDngDataset, mosaic_levels, write_mosaic_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, sample
from tests.conftest import make_frame


def saved(path, frame, light, ratio):
    dataset = MosaicDngDataset(filepath=str(path))
    dataset.save(LinearPicture(light.astype(np.float32), frame, ratio))
    return dataset


@pytest.mark.parametrize(("cfa", "side"), [(BAYER_RGGB, 64), (XTRANS, 516)])
@pytest.mark.parametrize("orientation", [0, 6])
def test_libraw_reads_what_the_photosites_would_have_seen(cfa, side, orientation, rng, tmp_path):
    """At the raw's own exposure, to half a step of 16 bits; noise below black too."""
    frame = replace(make_frame(rng, cfa, (side, side)), orientation=orientation)
    light = rng.uniform(-0.05, 5, (3, side, side))
    signal = saved(tmp_path / "a.dng", frame, light, 10.0).load()
    seen = sample(light / np.reshape(frame.white_balance, (3, 1, 1)) / 10, frame.cfa)
    black, white, _ = mosaic_levels(frame)
    np.testing.assert_allclose(signal, seen, atol=0.51 / (white - black))
    read = read_frame(tmp_path / "a.dng", "tag")
    assert (read.cfa, read.orientation, read.camera, read.guessed) == (frame.cfa, orientation, frame.camera, ())
    np.testing.assert_allclose(read.white_balance, frame.white_balance, rtol=1e-4)


def test_the_levels_are_the_raws_as_fine_as_sixteen_bits_hold(rng):
    frame = replace(make_frame(rng), white_level=3840.0, black_level=np.full((2, 2), 60.25, np.float32))
    assert mosaic_levels(frame) == (60 * 17, 3840 * 17, 17)
    assert mosaic_levels(replace(frame, white_level=65535.0)) == (60, 65535, 1)


def test_its_header_is_that_of_the_raw(rng, tmp_path):
    frame = make_frame(rng, shape=(64, 64))
    write_dng(tmp_path / "raw.dng", frame, taken_at="2024-02-29T23:59:59")
    write_mosaic_dng(tmp_path / "cfa.dng", LinearPicture(np.full((3, 64, 64), 0.3, np.float32), frame, 3.0, tmp_path / "raw.dng"))
    assert read_header(tmp_path / "cfa.dng") == pytest.approx(read_header(tmp_path / "raw.dng"), nan_ok=True)
