import struct
from dataclasses import replace

import numpy as np
import pytest
import rawpy

from lowlight_kedro.datasets import decoding
from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.tags import DEFAULT_CROP_ORIGIN, DEFAULT_CROP_SIZE, EXPOSURE_TIME, FUJI_BLACK, MAKE, MODEL, TAKEN_AT, read_tags
from lowlight_kedro.sensor.render import oriented
from tests.conftest import SHARED, make_frame

FIELDS = {"exposure_s", "iso", "height", "width", "camera", "taken_at", "orientation", "focal_mm"}


def small(rng, **changes):
    return replace(make_frame(rng, shape=(128, 160)), **changes)


def test_header_and_frame_say_the_same(rng, tmp_path):
    written = small(rng, orientation=6, exposure_s=1 / 30, iso=102400.0)
    write_dng(tmp_path / "a.dng", written, taken_at="2014-03-09T13:25:51", border=(2, 4, 1, 0))
    header, frame = read_header(tmp_path / "a.dng"), read_frame(tmp_path / "a.dng")
    assert header.keys() == FIELDS
    assert (header["height"], header["width"]) == frame.mosaic_dn.shape == (128, 160)
    assert header["exposure_s"] == frame.exposure_s == pytest.approx(1 / 30, rel=1e-9)
    assert header["iso"] == frame.iso == 102400
    assert (header["camera"], header["orientation"]) == (frame.camera, frame.orientation) == ("test ILCE-7SM2", 6)
    assert header["taken_at"] == "2014-03-09T13:25:51"
    assert np.isnan(header["focal_mm"])


def test_the_header_of_a_real_raw(bracket):
    header = read_header(bracket / "sample1.dng")
    assert (header["taken_at"], header["focal_mm"], header["exposure_s"], header["iso"]) == ("2014-03-09T13:25:51", 24, 1 / 160, 200)


def test_a_header_is_read_without_decoding(rng, tmp_path, monkeypatch):
    """LibRaw's shot information would decode the whole file."""
    write_dng(tmp_path / "a.dng", small(rng))
    monkeypatch.setattr(decoding, "_or_else", lambda *_: pytest.fail("asked LibRaw, which decodes"))
    assert read_header(tmp_path / "a.dng")["iso"] == 1600


def test_what_no_tag_tells_is_nan(rng, tmp_path):
    write_dng(tmp_path / "a.dng", small(rng, exposure_s=np.nan, iso=np.nan))
    header = read_header(tmp_path / "a.dng")
    assert np.isnan([header["exposure_s"], header["iso"]]).all()
    assert header["taken_at"] is None


@pytest.mark.skipif(not (SHARED / "raw_kodak").is_dir(), reason="no raw_kodak folder in LOWLIGHT_TEST_DATA")
def test_libraw_is_asked_for_what_the_tags_do_not_tell():
    header = read_header(SHARED / "raw_kodak/RAW_KODAK_DC50.KDC")
    assert (header["exposure_s"], header["iso"], header["focal_mm"]) == (pytest.approx(0.00435), 84, 37)


@pytest.mark.parametrize("orientation", range(8))
def test_a_picture_is_turned_as_libraw_turns_it(orientation, rng, tmp_path):
    """Half-size rendering by LibRaw of the same mosaic, with its own turning and without."""
    write_dng(tmp_path / "a.dng", small(rng, orientation=orientation))
    assert read_frame(tmp_path / "a.dng").orientation == orientation
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        turned, lying = (raw.postprocess(half_size=True, no_auto_bright=True, user_flip=flip).transpose(2, 0, 1) for flip in (None, 0))
    np.testing.assert_array_equal(oriented(lying, orientation), turned)


def test_other_orientations_are_refused():
    with pytest.raises(ValueError, match=r"orientation must be in 0 \.\.\. 7 .* got 8"):
        oriented(np.zeros((3, 2, 2)), 8)


def test_white_balance_that_no_lamp_has_counts_as_missing(rng, tmp_path):
    write_dng(tmp_path / "a.dng", small(rng, white_balance=(500.0, 1.0, 1.6)))
    frame = read_frame(tmp_path / "a.dng")
    assert frame.guessed == ("white balance",)
    balance = frame.white_balance
    assert balance[1] == 1
    assert 0.05 < balance[0] < 20


@pytest.mark.parametrize(
    ("file", "guessed", "aspect"),
    [
        ("raw_faults/Kodak_DC120_P003909.KDC", ("white balance", "colour matrix"), 1.5346),
        ("raw_kodak/RAW_KODAK_DC50.KDC", ("white balance", "colour matrix"), 1),
        ("raw_faults/Canon_PowerShot_S40_CRW_0117.CRW", (), 1),
        ("raw_bracket/sample2.dng", (), 1),
    ],
)
def test_what_is_guessed_of_the_colours_is_known(file, guessed, aspect):
    if not (SHARED / file).is_file():
        pytest.skip(f"no {file} in LOWLIGHT_TEST_DATA")
    frame = read_frame(SHARED / file)
    assert (frame.guessed, frame.pixel_aspect) == (guessed, pytest.approx(aspect, abs=1e-4))


def test_the_camera_says_what_part_of_its_sensor_is_the_picture(rng, tmp_path):
    """DefaultCrop counts from the active area."""
    write_dng(tmp_path / "a.dng", small(rng), border=(2, 4, 0, 0))
    tags = read_tags(tmp_path / "a.dng")
    tags = replace(tags, directories=({DEFAULT_CROP_ORIGIN: (8.0, 6.0), DEFAULT_CROP_SIZE: (140, 100)}, *tags.directories))
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        assert decoding._default_crop(raw, tags) == (6, 8, 100, 140)
        torn = replace(tags, directories=({DEFAULT_CROP_SIZE: (9999, 100)}, *tags.directories))
        assert decoding._default_crop(raw, torn) is None


@pytest.mark.parametrize(
    ("said", "name", "reason"),
    [
        ({259: 9}, "a.dng", "it is a GoPro raw"),
        ({}, "a.GPR", "convert it to DNG first"),
        ({259: 52546}, "a.dng", "compressed by JPEG XL"),
        ({259: 8}, "a.dng", "compressed by deflate of whole numbers"),
    ],
)
def test_what_cannot_be_decoded_is_refused_by_its_header_with_what_to_do(said, name, reason, tmp_path):
    values = {254: 0, 256: 6000, 257: 4000, 259: 7, 262: 32803} | said
    entries = [struct.pack(">HHII", number, 4, 1, value) for number, value in values.items()] + [
        struct.pack(">HHI4B", 50706, 1, 4, 1, 7, 0, 0)
    ]
    (tmp_path / name).write_bytes(b"MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries) + bytes(4))
    with pytest.raises(RawReadError, match=reason):
        read_header(tmp_path / name)


@pytest.mark.parametrize(
    ("begin", "told"),
    [
        (b"\xff\xd8\xff\xe0", "it is a JPEG, no raw"),
        (b"\0\0\0\x18ftypheic", "it is a HEIF or AVIF, no raw"),
        (b"\0\0\0\x0cJXL \r\n", "it is a JPEG XL, no raw"),
        (b"\0\0\0\x14ftypqt  ", "it is a film, no raw"),
        (b"II*\0", "is it a whole raw file"),
    ],
)
def test_what_is_no_raw_is_told_by_name(begin, told, tmp_path):
    (tmp_path / "a.arw").write_bytes(begin + bytes(1000))
    with pytest.raises(RawReadError, match=rf"a\.arw: LibRaw cannot read it .*{told}"):
        read_header(tmp_path / "a.arw")


def tiff(tags):
    """A big-endian TIFF of one directory: {tag: (type, count, bytes)}, all values beside the entries."""
    entries, values, at = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, count, data) in sorted(tags.items()):
        entries += struct.pack(">HHII", tag, kind, count, at + len(values))
        values += data
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + values


def test_a_fuji_tells_in_two_tiffs_of_one_file(tmp_path):
    """Exif within the preview, the black levels of 36 photosites in Fuji's own directory."""
    exif = tiff({MAKE: (2, 9, b"FUJIFILM\0"), MODEL: (2, 5, b"X-T2\0"), EXPOSURE_TIME: (5, 1, struct.pack(">II", 1, 25))})
    black = range(1020, 1056)
    fuji = tiff({FUJI_BLACK: (4, 36, struct.pack(">36I", *black))})
    preview = b"\xff\xd8\xff\xe1\0\0Exif\0\0" + exif
    offsets = struct.pack(">5I", 160, len(preview), 0, 0, 160 + len(preview))
    (tmp_path / "a.raf").write_bytes(b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + offsets + bytes(56) + preview + fuji)
    tags = read_tags(tmp_path / "a.raf")
    assert tags.find(FUJI_BLACK) == tuple(black)
    assert (tags.camera, tags.number(EXPOSURE_TIME)) == ("FUJIFILM X-T2", 0.04)


def test_directories_that_point_at_themselves_end(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<I", 8))
    assert len(read_tags(tmp_path / "a.dng").directories) == 1


@pytest.mark.parametrize("text", ["2014:13:09 13:25:51", "    :  :     :  :  ", "yesterday"])
def test_a_clock_that_was_never_set_tells_nothing(text, tmp_path):
    (tmp_path / "a.dng").write_bytes(tiff({TAKEN_AT: (2, len(text) + 1, text.encode() + b"\0")}))
    assert read_tags(tmp_path / "a.dng").taken_at is None
