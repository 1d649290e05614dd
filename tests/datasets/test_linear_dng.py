"""Linear DNG: other software reads the values, and shows them as it shows the camera's own file."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rawpy
import tifffile
from kedro.io import DatasetError
from PIL import Image

from lowlight_kedro.datasets import dng
from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header
from lowlight_kedro.datasets.dng import neutral_tag, source_colour, write_dng
from lowlight_kedro.datasets.exif import append_directories, first_tags
from lowlight_kedro.datasets.linear_dng import CODES, HIGHEST, Levels, LinearDngDataset, LinearPicture, fitted, linearization
from lowlight_kedro.datasets.metadata import fractions as rational_entry
from lowlight_kedro.datasets.metadata import of_frame
from lowlight_kedro.datasets.tags import Tags, read_tags
from lowlight_kedro.exposure import noise_of
from lowlight_kedro.sensor.cfa import UNFILTERED
from lowlight_kedro.sensor.demosaic.interpolation import superpixel
from lowlight_kedro.sensor.frame import balanced, crop, normalise, same_white
from lowlight_kedro.sensor.render import SRGB_FROM_XYZ_D65, camera_to_srgb, oriented
from tests.conftest import SHARED, make_frame

MATRIX = np.array([[0.7309, -0.1403, -0.0519], [-0.8474, 1.6008, 0.2622], [-0.2433, 0.2826, 0.8064]])
WARM = np.array([[0.9, -0.3, -0.05], [-0.7, 1.5, 0.2], [-0.2, 0.3, 0.7]])
FORWARD = np.array([[0.7, 0.15, 0.1142], [0.25, 0.8, -0.05], [0.03, -0.1, 0.8951]])


def smooth_frame(rng, **changes):
    """A raw of coloured light that hardly changes from one photosite to the next."""
    rows, columns = np.mgrid[0:1:240j, 0:1:320j]
    light = np.stack([0.1 + 0.25 * rows, 0.15 + 0.5 * columns, 0.1 + 0.2 * rows * columns])
    frame = replace(make_frame(rng, shape=rows.shape), camera_to_srgb=camera_to_srgb(MATRIX), **changes)
    colours = np.tile(np.asarray(frame.cfa), (120, 160))
    mosaic = np.take_along_axis(light, colours[None], axis=0)[0]
    return replace(frame, mosaic_dn=np.rint(512 + 15871 * mosaic).astype(np.uint16))


def picture(rng, low=0.0, high=3.0, ratio=100.0, source=None, **changes) -> LinearPicture:
    light = rng.uniform(low, high, (3, 40, 60)).astype(np.float32)
    return LinearPicture(light, replace(make_frame(rng, shape=(64, 64)), **changes), ratio, source)


def saved(path, content, headroom=8.0) -> LinearDngDataset:
    dataset = LinearDngDataset(filepath=str(path), headroom=headroom)
    dataset.save(content)
    return dataset


def developed(path, **options) -> np.ndarray:
    """Linear values (H, W, 3) of LibRaw, 1 = white."""
    with rawpy.imread(str(path)) as raw:
        values = raw.postprocess(
            gamma=(1, 1), no_auto_bright=True, use_camera_wb=True, output_bps=16, adjust_maximum_thr=0, **options
        )  # fmt: skip
    return values / 65535


def with_tags(path: Path, tags: list, frame) -> Path:
    """A mosaic DNG that says more than ours of its colours."""
    values = {33434: [1 / 30], 33437: [2.8], 37386: [35]}
    metadata = replace(of_frame(frame), exif={number: rational_entry(number, value, 100) for number, value in values.items()})
    said = [(50706, "B", 4, bytes((1, 4, 0, 0)), True), (50708, "s", 0, "Acme One", True), (33421, "H", 2, (2, 2), True),
            (33422, "B", 4, bytes((0, 1, 1, 2)), True), neutral_tag(frame), *first_tags(metadata), *tags]  # fmt: skip
    with tifffile.TiffWriter(path, byteorder="<") as writer:
        writer.write(frame.mosaic_dn, photometric=32803, extratags=said, metadata=None)
    append_directories(path, metadata)
    return path


def half_step(content: LinearPicture, headroom=8.0) -> np.ndarray:
    """By how much a file may miss light (3, H, W): half of what lies between two of its codes, and half a DN."""
    levels, table = fitted(content, headroom), linearization().astype(float)
    codes = levels.to_codes(content.light / content.gains)
    return (0.51 * np.diff(table, append=table[-1])[codes.clip(1) - 1] + 1) / levels.scale * content.gains


def fractions(matrix) -> list[int]:
    return [part for value in np.ravel(matrix) for part in (round(value * 10_000), 10_000)]


def test_libraw_reads_the_numbers_and_they_are_the_light(rng, tmp_path):
    content = picture(rng)
    loaded = saved(tmp_path / "a.dng", content).load()
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        numbers, black, white = raw.raw_image[..., :3].astype(float), raw.black_level_per_channel[:3], raw.white_level
    exposure = read_tags(tmp_path / "a.dng").find(50730)[0]
    gains = np.array(content.frame.white_balance)
    light = ((numbers - black) / (white - np.array(black)) * 2**exposure * gains).transpose(2, 0, 1)
    assert (np.abs(light - content.light) < half_step(content)).all()
    np.testing.assert_allclose(loaded, light, atol=1e-6)


def test_it_is_read_as_a_raw_of_three_values_a_pixel(rng, tmp_path):
    content = picture(rng, high=1.0, orientation=5)
    saved(tmp_path / "a.dng", content)
    frame = read_frame(tmp_path / "a.dng")
    assert (frame.cfa, frame.shape, frame.orientation, frame.camera) == (UNFILTERED, (40, 60), 5, content.frame.camera)
    assert (np.abs(balanced(normalise(frame), frame.cfa, frame.white_balance) - content.light) < half_step(content)).all()
    part = normalise(crop(frame, 5, 7, 20, 30))
    np.testing.assert_array_equal(part, normalise(frame)[:, 5:25, 7:37])
    with pytest.raises(ValueError, match=r"three values \(linear DNG, sRAW\), no mosaic: it can be restored, but not compared"):
        same_white((frame, frame))


def test_a_finished_files_own_levels_are_taken(tmp_path, rng):
    """One black level a channel, a white level, the noise that the file tells, as in ProRAW; rows of their own are refused."""
    pixels = rng.integers(500, 4000, (64, 80, 3), dtype=np.uint16)
    levels = [(50706, "B", 4, bytes((1, 4, 0, 0)), True), (50714, "H", 3, (100, 200, 300), True), (50717, "H", 3, (4095,) * 3, True)]
    levels.append((51041, "d", 6, (2e-4, 9e-8) * 3, True))  # NoiseProfile
    with tifffile.TiffWriter(tmp_path / "a.dng") as writer:
        writer.write(pixels, photometric=34892, planarconfig="contig", extratags=levels, metadata=None)
    signal = normalise(read_frame(tmp_path / "a.dng"))
    black = np.array([100, 200, 300])
    np.testing.assert_allclose(signal, ((pixels - black) / (4095 - black)).transpose(2, 0, 1), atol=1e-6)
    noise, source = noise_of(read_frame(tmp_path / "a.dng"))
    assert source.startswith("tag")
    assert (noise.gain, noise.read_noise) == pytest.approx((2e-4, 3e-4))
    with tifffile.TiffWriter(tmp_path / "b.dng") as writer:
        rows = (50716, "2i", 64, [part for row in range(64) for part in (row, 1)], True)
        writer.write(pixels, photometric=34892, planarconfig="contig", extratags=[*levels, rows], metadata=None)
    with pytest.raises(RawReadError, match="a black level for each row or column"):
        read_frame(tmp_path / "b.dng")


def test_black_is_zero_and_values_above_white_survive(rng, tmp_path, caplog):
    """Editors do not subtract a black level from linear files, so negative values are black."""
    content = picture(rng, low=-0.05, high=7.5)
    with caplog.at_level(logging.WARNING):
        loaded = saved(tmp_path / "a.dng", content).load()
    assert not caplog.records
    assert (np.abs(loaded - content.light.clip(0)) < half_step(content)).all()
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        assert file.pages.first.pages[0].tags["BlackLevel"].value == (0, 0, 0)


def test_what_does_not_fit_is_clipped_and_said(rng, tmp_path, caplog):
    content = picture(rng, low=-1.0, high=12.0)
    loaded = saved(tmp_path / "a.dng", content, headroom=4.0).load()
    gains = np.array(content.frame.white_balance)[:, None, None]
    assert (np.abs(loaded - content.light.clip(0, 4 * gains)) < half_step(content, 4.0)).all()
    above = (content.light > 4 * gains).mean()
    assert f"of the values {above:.2g} lie above what it holds (headroom)" in caplog.text


@pytest.mark.parametrize(("highest", "saturation"), [(0.5, 10), (1.0, 1), (3.0, 2), (99, 50), (5, 0.5)])
def test_levels_hold_what_they_should(highest, saturation):
    levels = Levels.of(highest, saturation, headroom=8.0)
    top, shown = np.clip(highest, 1, 8), min(np.clip(highest, 1, 8), saturation)
    assert levels.highest == pytest.approx(top)
    assert linearization()[levels.to_codes(np.float32([0, top]))].tolist() == [0, HIGHEST]
    assert linearization()[levels.to_codes(np.float32(shown))] == levels.white
    assert 2**levels.baseline_exposure == pytest.approx(shown, rel=4e-4)


def test_steps_lie_below_the_noise_of_light(rng):
    """Of the quietest camera of the table, gain 6e-6 of white, a quarter of it, and one DN of 16 bits in black; dcraw reads 4096 codes."""
    table = linearization().astype(float) / HIGHEST
    assert len(table) == CODES == 4096
    assert (np.diff(table) < np.sqrt(6e-6 * table[1:]) / 4 + 2 / HIGHEST).all()
    assert np.diff(linearization()[:100]).max() <= 2
    light = rng.random(1000, dtype=np.float32)
    least = np.abs(table[:, None] - light).min(0)
    assert (np.abs(table[Levels(HIGHEST, HIGHEST).to_codes(light)] - light) < least + 1 / HIGHEST).all()


def test_levels_fit_camera_values_not_balanced_ones(rng):
    """Red, whose gain is 2, holds the extremes."""
    content = picture(rng, low=0, high=0.1)
    content.light[0, 0, 0] = 6.0
    assert fitted(content, 8.0) == Levels.of(3.0, 100.0, 8.0)


@pytest.mark.parametrize("orientation", range(8))
def test_libraw_shows_it_as_it_shows_the_mosaic(orientation, rng, tmp_path):
    """Colour, brightness and orientation, of a scene whose half-size mosaic is its demosaiced picture."""
    frame = smooth_frame(rng, orientation=orientation)
    write_dng(tmp_path / "mosaic.dng", frame)
    light = superpixel(balanced(normalise(frame), frame.cfa, frame.white_balance), frame.cfa)
    saved(tmp_path / "linear.dng", LinearPicture(light, frame, 1.0, tmp_path / "mosaic.dng"))
    mosaic, linear = developed(tmp_path / "mosaic.dng", half_size=True), developed(tmp_path / "linear.dng")
    assert linear.shape == oriented(light, orientation).transpose(1, 2, 0).shape
    np.testing.assert_allclose(linear, mosaic, atol=8e-4)


def test_libraw_shows_a_real_raw_as_it_shows_its_mosaic(bracket, tmp_path):
    source, ratio = bracket / "sample2.dng", 4.0
    frame = read_frame(source, "tag")
    light = superpixel(balanced(normalise(frame), frame.cfa, frame.white_balance), frame.cfa) * np.float32(ratio)
    saved(tmp_path / "a.dng", LinearPicture(light, frame, ratio, source))
    exposure = read_tags(tmp_path / "a.dng").find(50730)[0]
    mosaic, linear = developed(source, half_size=True) * ratio, developed(tmp_path / "a.dng") * 2**exposure
    shown = (mosaic.max(axis=2) < 0.9 * 2**exposure) & (mosaic.min(axis=2) > 0.02)
    assert shown.mean() > 0.1
    assert np.abs(linear - mosaic)[shown].max() < 1e-3 * 2**exposure
    original, written = read_header(source), read_header(tmp_path / "a.dng")
    same = ("exposure_s", "iso", "focal_mm", "camera", "taken_at", "orientation")
    assert {key: original[key] for key in same} == {key: written[key] for key in same}


def test_saturated_light_is_white_and_brighter_light_survives(rng, tmp_path):
    """The photosites saturate at 4; balanced they are 8, 4 and 6.4. Something restored above stays in the file."""
    content = picture(rng, ratio=4.0)
    gains = np.array(content.frame.white_balance, np.float32)[:, None]
    content.light[:, 5] = 4 * gains
    content.light[:, 6] = 6 * gains
    dataset = saved(tmp_path / "a.dng", content)
    np.testing.assert_allclose(dataset.load()[:, 6], np.broadcast_to(6 * gains, (3, 60)), rtol=4e-4)
    assert developed(tmp_path / "a.dng", user_flip=0)[5:7].min() > 1 - 1e-4


def test_two_calibrations_are_carried_over_with_what_is_true_of_this_one_camera(rng, tmp_path):
    frame = smooth_frame(rng)
    balance, own = np.diag([1.1, 1.0, 0.9]), np.diag([1.02, 1.0, 0.97])
    source = with_tags(tmp_path / "b.dng", [
        (50721, "2i", 9, fractions(WARM), True), (50722, "2i", 9, fractions(MATRIX), True),
        (50723, "2i", 9, fractions(own), True), (50727, "2I", 3, fractions(np.diag(balance)), True),
        (50730, "2i", 1, (-35, 100), True), (50778, "H", 1, 17, True), (50779, "H", 1, 21, True),
        (50964, "2i", 9, fractions(FORWARD), True), (50965, "2i", 9, fractions(FORWARD.T), True),
    ], frame)  # fmt: skip
    saved(tmp_path / "a.dng", picture(rng, source=source))
    tags = read_tags(tmp_path / "a.dng")
    np.testing.assert_allclose(np.reshape(tags.find(50721), (3, 3)), balance @ own @ WARM, atol=1e-4)
    np.testing.assert_allclose(np.reshape(tags.find(50722), (3, 3)), balance @ MATRIX, atol=1e-4)
    np.testing.assert_allclose(np.reshape(tags.find(50965), (3, 3)), FORWARD.T, atol=1e-4)
    assert [tags.find(number) for number in (50723, 50724, 50727)] == [None] * 3
    assert (tags.find(50778), tags.find(50779), tags.find(50708)) == ((17,), (21,), "Acme One")
    assert tags.find(51109) == (-0.35,)
    assert (tags.number(33437), tags.number(37386)) == (2.8, 35.0)


def test_a_mixing_calibration_makes_forward_matrices_invalid(rng, tmp_path):
    mixing = np.array([[1, 0.05, 0], [0, 1, 0], [0, 0, 1]])
    source = with_tags(tmp_path / "b.dng", [
        (50721, "2i", 9, fractions(MATRIX), True), (50723, "2i", 9, fractions(mixing), True),
        (50778, "H", 1, 21, True), (50964, "2i", 9, fractions(FORWARD), True),
    ], smooth_frame(rng))  # fmt: skip
    (calibration,) = source_colour(smooth_frame(rng), source).calibrations
    np.testing.assert_allclose(calibration.to_camera, mixing @ MATRIX, atol=1e-4)
    assert calibration.forward is None


def test_impossible_matrices_are_not_carried_over(rng, tmp_path):
    frame = smooth_frame(rng)
    source = with_tags(
        tmp_path / "b.dng", [(50721, "2i", 9, fractions(np.ones((3, 3))), True), (50722, "2i", 9, fractions(WARM), True)], frame
    )
    (calibration,) = source_colour(frame, source).calibrations[:1]
    assert calibration.illuminant in (0, 21)
    assert np.linalg.matrix_rank(calibration.to_camera) == 3


def test_other_formats_take_libraws_matrix(bracket, monkeypatch):
    """The Nikon's DNG, without its tags: LibRaw knows the camera."""
    monkeypatch.setattr(dng, "read_tags", lambda _: Tags(()))
    (calibration,) = source_colour(read_frame(bracket / "sample2.dng"), bracket / "sample2.dng").calibrations
    np.testing.assert_allclose(calibration.to_camera, MATRIX, atol=1e-6)


def test_without_a_file_the_frames_matrix_counts(rng):
    frame = smooth_frame(rng)
    (own,) = source_colour(frame, None).calibrations
    np.testing.assert_allclose(camera_to_srgb(own.to_camera), frame.camera_to_srgb, atol=1e-5)
    white = own.to_camera @ np.linalg.inv(SRGB_FROM_XYZ_D65).sum(axis=1)
    np.testing.assert_allclose(white * frame.white_balance, 1, atol=1e-5)  # of D65 the camera makes its neutral


def test_a_dng_of_a_camera_that_libraw_does_not_know_keeps_its_matrix(rng, tmp_path):
    frame = smooth_frame(rng)
    write_dng(tmp_path / "a.dng", frame)
    np.testing.assert_allclose(read_frame(tmp_path / "a.dng").camera_to_srgb, camera_to_srgb(MATRIX), atol=1e-3)


def test_a_dng_without_a_matrix_is_taken_as_srgb(rng, tmp_path):
    frame = smooth_frame(rng)
    read = read_frame(with_tags(tmp_path / "a.dng", [], frame))
    np.testing.assert_array_equal(read.camera_to_srgb, np.eye(3))
    assert read.guessed == ("colour matrix",)
    saved(tmp_path / "b.dng", LinearPicture(np.full((3, 40, 60), 0.5, np.float32), read, 1.0, tmp_path / "a.dng"))
    assert read_tags(tmp_path / "b.dng").find(50778) == (0,)  # under no light that is known
    assert b"guessed: sRGB" in (tmp_path / "b.dng").read_bytes()


def test_the_crop_and_the_shape_of_the_pixels_are_the_cameras(rng, tmp_path):
    content = picture(rng, default_crop=(2, 4, 30, 50), pixel_aspect=1.5)
    content = replace(content, frame=replace(content.frame, mosaic_dn=content.frame.mosaic_dn[:40, :60]))
    saved(tmp_path / "a.dng", content)
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        raw, preview = file.pages.first.pages[0], file.pages.first
        assert [raw.tags[number].value for number in (50718, 50719, 50720)] == [(3, 2, 1, 1), (4, 2), (50, 30)]
        assert preview.shape == (40, 90, 3)


@pytest.mark.skipif(not (SHARED / "raw_kodak").is_dir(), reason="no raw_kodak folder in LOWLIGHT_TEST_DATA")
def test_a_camera_that_libraw_has_no_matrix_for(rng, tmp_path):
    source = SHARED / "raw_kodak/RAW_KODAK_DC50.KDC"
    frame = read_frame(source)
    saved(tmp_path / "a.dng", LinearPicture(np.full((3, 40, 60), 0.5, np.float32), frame, 10.0, source))
    np.testing.assert_allclose(developed(tmp_path / "a.dng"), 0.5, atol=2e-3)
    assert np.linalg.matrix_rank(np.reshape(read_tags(tmp_path / "a.dng").find(50721), (3, 3))) == 3
    assert read_header(tmp_path / "a.dng")["camera"] == frame.camera


def test_the_exposure_told_is_the_cameras_own(rng, tmp_path):
    content = picture(rng, exposure_s=0.04, iso=102400.0, orientation=6)
    saved(tmp_path / "a.dng", content)
    told = read_header(tmp_path / "a.dng")
    assert (told["exposure_s"], told["iso"], told["orientation"], told["camera"]) == (0.04, 102400, 6, "test ILCE-7SM2")
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        tags, raw = file.pages.first.tags, file.pages.first.pages[0]
        assert tags["ImageDescription"].value == "restored, 100 times brighter than exposed"
        assert (tags[50706].value, tags[50935].value) == (bytes((1, 4, 0, 0)), (1, 1))  # DNGVersion, NoiseReductionApplied
        assert (tags[254].value, raw.tags[254].value) == (1, 0)  # thumbnail, full size
        assert (raw.photometric, raw.shape) == (34892, (40, 60, 3))
        assert raw.tags[50720].value == (60, 40)  # DefaultCropSize: width, height


def test_readers_without_raw_support_see_a_thumbnail(rng, tmp_path):
    frame = smooth_frame(rng)
    light = np.full((3, 300, 700), 0.18, np.float32)
    saved(tmp_path / "a.dng", LinearPicture(light, frame, 1.0))
    thumbnail = np.asarray(Image.open(tmp_path / "a.dng"))
    assert thumbnail.shape == (300, 700, 3)
    assert np.abs(thumbnail - 118.0).max() <= 1  # 0.18 in sRGB


def test_names_of_any_language_and_the_same_bytes_again(rng, tmp_path):
    source = tmp_path / "dämmerung.dng"
    write_dng(source, smooth_frame(rng, camera="カメラ 一"), taken_at="2024-02-29T23:59:59")
    content = picture(rng, source=source)
    saved(tmp_path / "a.dng", content)
    saved(tmp_path / "b.dng", content)
    assert (tmp_path / "a.dng").read_bytes() == (tmp_path / "b.dng").read_bytes()
    assert read_header(tmp_path / "a.dng")["taken_at"] == "2024-02-29T23:59:59"
    assert read_tags(tmp_path / "a.dng").camera == "カメラ 一"
    assert "dämmerung.dng".encode() in (tmp_path / "a.dng").read_bytes()


def test_impossible_limits_are_refused():
    with pytest.raises(DatasetError, match="headroom must be at least 1, got"):
        LinearDngDataset(filepath="a.dng", headroom=0.5)
