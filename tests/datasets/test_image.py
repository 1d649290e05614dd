import io

import numpy as np
import pytest
import tifffile
from kedro.io import DatasetError
from PIL import Image, ImageCms

from lowlight_kedro.datasets.image import ImageDataset, srgb_profile


@pytest.mark.parametrize(("suffix", "levels"), [("tif", 65535), ("png", 255)])
def test_images_round_trip_to_half_a_level_and_clip(suffix, levels, tmp_path, rng):
    image = rng.uniform(-0.1, 1.1, (3, 20, 30)).astype(np.float32)
    dataset = ImageDataset(filepath=str(tmp_path / f"a.{suffix}"))
    dataset.save(image)
    np.testing.assert_allclose(dataset.load(), image.clip(0, 1), atol=0.51 / levels)


def test_tiffs_have_sixteen_bits(tmp_path, rng):
    ImageDataset(filepath=str(tmp_path / "a.tif")).save(rng.uniform(size=(3, 4, 5)))
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint16


def test_thirty_two_bits_hold_anything(tmp_path, rng):
    image = rng.normal(0, 30, (3, 20, 30)).astype(np.float32)
    dataset = ImageDataset(filepath=str(tmp_path / "a.tif"), bits=32)
    dataset.save(image)
    np.testing.assert_array_equal(dataset.load(), image)


def test_half_precision_keeps_the_digits_of_a_standard_deviation_in_half_the_bytes(tmp_path, rng):
    rows, columns = np.mgrid[:64, :96] / 64
    std = (1e-3 * np.exp(np.stack([rows + columns, 3 * rows, -4 * columns])) + 1e-9 * rng.random((3, 64, 96))).astype(np.float32)
    sizes = {}
    for bits in (32, "half"):
        dataset = ImageDataset(filepath=str(tmp_path / f"{bits}.tif"), bits=bits)
        dataset.save(std)
        np.testing.assert_allclose(dataset.load(), std, rtol=2**-11 if bits == "half" else 0, atol=3e-8)
        sizes[bits] = (tmp_path / f"{bits}.tif").stat().st_size
    assert sizes["half"] < 0.5 * sizes[32]


def test_a_jpeg_is_what_was_given_in_full_colour_resolution(tmp_path):
    light = np.zeros((3, 64, 64), np.float32)
    light[0, :, ::2] = 1  # red and black columns: subsampled colour would mix them
    dataset = ImageDataset(filepath=str(tmp_path / "a.jpg"), profile="srgb")
    dataset.save(light)
    assert np.abs(dataset.load() - light).mean() < 0.03
    assert "icc_profile" in Image.open(tmp_path / "a.jpg").info


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_srgb_is_said_in_a_profile_that_does_not_change_with_time(suffix, tmp_path, rng, monkeypatch):
    image = rng.uniform(size=(3, 20, 30))
    contents = []
    for day in (1, 2):
        monkeypatch.setattr("PIL.ImageCms.ImageCmsProfile.tobytes", lambda self, day=day: bytes(24) + bytes([day] * 12) + bytes(500))
        srgb_profile.cache_clear()
        ImageDataset(filepath=str(tmp_path / f"a.{suffix}"), profile="srgb").save(image)
        contents.append((tmp_path / f"a.{suffix}").read_bytes())
    monkeypatch.undo()
    srgb_profile.cache_clear()
    assert contents[0] == contents[1]
    ImageDataset(filepath=str(tmp_path / f"a.{suffix}"), profile="srgb").save(image)
    embedded = ImageCms.ImageCmsProfile(io.BytesIO(Image.open(tmp_path / f"a.{suffix}").info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(embedded)
    ImageDataset(filepath=str(tmp_path / f"b.{suffix}")).save(image)
    assert "icc_profile" not in Image.open(tmp_path / f"b.{suffix}").info


@pytest.mark.parametrize("settings", [{"filepath": "a.bmp"}, {"filepath": "a.tif", "bits": 8}, {"filepath": "a.tif", "profile": "p3"}])
def test_other_kinds_are_refused(settings):
    with pytest.raises(DatasetError, match=r"a \.tif of 16, 32 or half bits, a \.png or a \.jpg, its profile srgb or null, got a\."):
        ImageDataset(**settings)
