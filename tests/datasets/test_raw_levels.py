"""The law: whatever the levels and wherever the active area begins, `normalise` gives back the light that was written."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from lowlight_kedro.datasets.decoding import RawReadError, read_frame
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, tile_pattern
from lowlight_kedro.sensor.frame import normalise
from tests.conftest import CFAS, PHASES, SHARED, make_frame

SHAPE = {2: (128, 160), 6: (498, 516)}  # LibRaw takes no smaller X-Trans
WHITE = 4095.0


def written(path, cfa, pattern, *, rows=None, columns=None, rng, **kept):
    """Light in [-0.02, 0.98] per photosite, written with these black levels; returns it."""
    shape = SHAPE[len(cfa)]
    black = tile_pattern(np.asarray(pattern, np.float32), shape)
    deltas = np.zeros(shape) + (0 if rows is None else np.asarray(rows)[:, None]) + (0 if columns is None else np.asarray(columns))
    light = rng.uniform(-0.02, 0.98, shape)
    mosaic = np.rint(black + deltas + light * (WHITE - black - deltas)).astype(np.uint16)
    frame = replace(make_frame(rng, cfa, shape), mosaic_dn=mosaic, black_level=np.asarray(pattern, np.float32), white_level=WHITE)
    write_dng(path, frame, row_black=rows, column_black=columns, **kept)
    return light


def assert_read_back(path, light, cfa):
    """To half a DN, the rounding of the mosaic. LibRaw leaves out the first row or column of a Bayer area at odd places."""
    frame = read_frame(path)
    down, right = light.shape[0] - frame.mosaic_dn.shape[0], light.shape[1] - frame.mosaic_dn.shape[1]
    assert {down, right} <= ({0, 1} if len(cfa) == 2 else {0})
    assert frame.cfa == tuple(map(tuple, np.roll(cfa, (-down, -right), (0, 1)).tolist()))
    np.testing.assert_allclose(normalise(frame), light[down:, right:], atol=0.51 / (WHITE - 400))


PATTERNS = {
    "one value": np.full((1, 1), 200.0),
    "four values": np.array([[200, 210], [230, 260]]),
    "by row": np.array([[200], [240]]),
    "by column": np.array([[200, 240]]),
    "fractions": np.array([[200.25, 210.5], [199.75, 205.0]]),
    "3x3": 200.0 + np.arange(9).reshape(3, 3) * 5,
    "4x4": 200.0 + np.arange(16).reshape(4, 4) * 3,
    "6x6": 200.0 + np.arange(36).reshape(6, 6),
    "2x6": 200.0 + np.arange(12).reshape(2, 6),
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("cfa", [PHASES[1], XTRANS], ids=["bayer", "xtrans"])
def test_every_black_pattern_gives_the_light_back(name, cfa, rng, tmp_path):
    assert_read_back(tmp_path / "a.dng", written(tmp_path / "a.dng", cfa, PATTERNS[name], rng=rng), cfa)


@pytest.mark.parametrize("cfa", CFAS)
@pytest.mark.parametrize("border", [(0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 3, 2), (8, 13, 1, 0)])
def test_colours_and_black_keep_their_phase_whatever_the_border(cfa, border, rng, tmp_path):
    side = len(cfa)
    light = written(tmp_path / "a.dng", cfa, 200.0 + 7 * np.arange(side * side).reshape(side, side), border=border, rng=rng)
    assert_read_back(tmp_path / "a.dng", light, cfa)


@pytest.mark.parametrize("cfa", [BAYER_RGGB, XTRANS], ids=["bayer", "xtrans"])
@pytest.mark.parametrize("which", ["rows", "columns", "both"])
def test_black_levels_of_rows_and_columns_count(cfa, which, rng, tmp_path):
    height, width = SHAPE[len(cfa)]
    rows = rng.integers(-8, 8, height) / 2 if which != "columns" else None
    columns = rng.integers(-8, 8, width) / 4 if which != "rows" else None
    light = written(tmp_path / "a.dng", cfa, PATTERNS["four values"], rows=rows, columns=columns, border=(1, 3, 0, 1), rng=rng)
    assert_read_back(tmp_path / "a.dng", light, cfa)


def test_row_levels_of_another_height_are_refused(rng, tmp_path):
    written(tmp_path / "a.dng", BAYER_RGGB, PATTERNS["one value"], rng=rng)
    frame = read_frame(tmp_path / "a.dng")
    write_dng(tmp_path / "b.dng", frame, row_black=[1.0] * 100)
    with pytest.raises(RawReadError, match=r"b\.dng: its tag BlackLevelDeltaV holds 100 values, expected 128"):
        read_frame(tmp_path / "b.dng")


def test_light_below_black_survives_the_whole_way(rng, tmp_path):
    light = written(tmp_path / "a.dng", BAYER_RGGB, PATTERNS["four values"], rng=rng)
    read = normalise(read_frame(tmp_path / "a.dng"))
    assert read.min() < -0.019
    assert (read < 0).mean() == pytest.approx((light < 0).mean(), abs=0.005)


@pytest.mark.parametrize("white", ["measured", "tag"])
def test_the_white_level_is_measured_or_the_tag(white, rng, tmp_path):
    frame = make_frame(rng, light=0.9)
    clipped = replace(frame, mosaic_dn=np.minimum(frame.mosaic_dn, 9000))
    write_dng(tmp_path / "a.dng", clipped)
    back = read_frame(tmp_path / "a.dng", white)
    assert (back.white_level, back.white_from) == ((9000, "measured") if white == "measured" else (16383, "tag"))


def test_a_noise_profile_is_in_the_units_of_the_signal(rng, tmp_path):
    """Variance in DN is the same whichever white level is used."""
    frame = replace(make_frame(rng, light=0.9), noise_profile=((4e-4, 1e-6), (5e-4, 2e-6), (6e-4, 3e-6)))
    write_dng(tmp_path / "a.dng", replace(frame, mosaic_dn=np.minimum(frame.mosaic_dn, 9000)))
    by_tag, measured = (read_frame(tmp_path / "a.dng", white) for white in ("tag", "measured"))
    np.testing.assert_allclose(by_tag.noise_profile, frame.noise_profile)
    for (s, o), (t, p) in zip(by_tag.noise_profile, measured.noise_profile, strict=True):
        in_dn = [(slope * (3000 - 512) / span + offset) * span**2 for slope, offset, span in ((s, o, 15871), (t, p, 8488))]
        assert in_dn[0] == pytest.approx(in_dn[1], rel=1e-6)


def test_the_nikons_green_saturates_at_its_tag_and_red_above(bracket):
    frame = read_frame(bracket / "sample3.dng")
    assert (frame.white_level, frame.white_from) == (3840, "tag")
    assert normalise(frame).max() == pytest.approx(4095 / 3840)


def masked_columns(rng, height, columns=32, level=3.0):
    return np.rint(rng.normal(200 + level, 3, (height, columns))).astype(np.uint16)


def with_noise(rng, shape):
    """A dim frame whose header says 200."""
    frame = make_frame(rng, BAYER_RGGB, shape)
    dim = np.rint(rng.normal(230, 4, shape)).astype(np.uint16)
    return replace(frame, mosaic_dn=dim, black_level=np.full((2, 2), 200, np.float32), white_level=WHITE)


def test_masked_areas_of_a_dng_tell_the_black_level(rng, tmp_path):
    frame = with_noise(rng, SHAPE[2])
    write_dng(tmp_path / "a.dng", frame, border=(4, 32, 0, 0), masked_left=masked_columns(rng, 128))
    read = read_frame(tmp_path / "a.dng")
    np.testing.assert_array_equal(read.mosaic_dn, frame.mosaic_dn)
    assert read.black_level.mean() == pytest.approx(203, abs=0.2)
    assert read.masked.sites == pytest.approx(32 * 128, rel=0.1)


def test_a_border_of_a_dng_that_does_not_call_itself_masked_is_not_asked(rng, tmp_path):
    frame = with_noise(rng, SHAPE[2])
    whole = np.hstack([masked_columns(rng, 128), frame.mosaic_dn])
    write_dng(tmp_path / "a.dng", replace(frame, mosaic_dn=whole))
    data = (tmp_path / "a.dng").read_bytes()
    area = struct.pack("<4I", 0, 0, 128, 192)
    assert data.count(area) == 1
    (tmp_path / "a.dng").write_bytes(data.replace(area, struct.pack("<4I", 0, 32, 128, 192)))
    read = read_frame(tmp_path / "a.dng")
    assert read.shape == (128, 160)
    assert read.masked is None
    assert (read.black_level == 200).all()


@pytest.mark.parametrize("area", [(0, 0, 128, 64), (0, 0, 500, 32), (4, 32, 4, 20)], ids=["in the picture", "outside", "empty"])
def test_masked_areas_that_cannot_be_are_told(area, rng, tmp_path):
    write_dng(tmp_path / "a.dng", with_noise(rng, SHAPE[2]), border=(4, 32, 0, 0), masked_left=masked_columns(rng, 128))
    data, told = (tmp_path / "a.dng").read_bytes(), struct.pack("<4I", 4, 0, 132, 32)
    assert data.count(told) == 1
    (tmp_path / "a.dng").write_bytes(data.replace(told, struct.pack("<4I", *area)))
    read = read_frame(tmp_path / "a.dng")
    assert read.masked is None
    assert read.undone == (f"MaskedAreas unusable: {area} does not lie beside the picture (4, 32, 132, 192) inside of 132 x 192",)


def test_the_borders_of_a_real_canon_agree_with_its_black_level_and_on_offsets_of_its_rows():
    """LibRaw says 32; the left border 31.96, the right one 32.11, so 32 stays; rows of 0.1 DN stand in both."""
    path = SHARED / "raw_faults" / "Canon_PowerShot_S40_CRW_0117.CRW"
    if not path.is_file():
        pytest.skip(f"the Canon S40 is not at {path}; set LOWLIGHT_TEST_DATA to its parent folder")
    read = read_frame(path)
    assert read.black_level.mean() == pytest.approx(32, abs=1e-3)
    assert read.masked.rows == pytest.approx(0.10, abs=0.02)
