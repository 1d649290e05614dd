import numpy as np
import pytest
import tifffile
from kedro.io import DatasetError

from lowlight_kedro.datasets.image import ImageDataset


@pytest.mark.parametrize(("suffix", "levels"), [("tif", 65535), ("png", 255)])
def test_images_round_trip_to_half_a_level_and_clip(suffix, levels, tmp_path, rng):
    image = rng.uniform(-0.1, 1.1, (3, 20, 30)).astype(np.float32)
    dataset = ImageDataset(filepath=str(tmp_path / f"a.{suffix}"))
    dataset.save(image)
    np.testing.assert_allclose(dataset.load(), image.clip(0, 1), atol=0.51 / levels)


def test_tiffs_have_sixteen_bits(tmp_path, rng):
    ImageDataset(filepath=str(tmp_path / "a.tif")).save(rng.uniform(size=(3, 4, 5)))
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint16


def test_other_kinds_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"\.tif \(16 bits\) or a \.png"):
        ImageDataset(filepath=str(tmp_path / "a.jpg")).save(np.zeros((3, 4, 5)))
