"""What Kedro-Viz shows of folders: a sheet of the first pictures, as an image that a browser reads."""

import base64
import inspect
import io

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from lowlight_kedro.datasets.figures import PicturesDataset, sheet
from lowlight_kedro.datasets.jobs import JobsDataset
from lowlight_kedro.datasets.stacks import write_stack

RED, BLUE = (200, 10, 10), (10, 10, 200)


def opened(preview):
    return Image.open(io.BytesIO(base64.b64decode(preview)))


def test_a_sheet_shows_pictures_and_tiles_in_order_and_bright_as_light_is_seen(tmp_path):
    Image.new("RGB", (900, 600), RED).save(tmp_path / "a.png")
    tiles = np.full((2, 3, 16, 16), 2 * 0.25 - 1, np.float32)
    write_stack(tmp_path / "b.npy", tiles)
    shown = opened(sheet([tmp_path / "a.png", tmp_path / "b.npy"]))
    assert shown.size[0] <= 960
    assert shown.getpixel((10, 10)) == RED
    assert abs(shown.getpixel((shown.size[0] // 2 + 10, 5))[0] - 127.5) < 1


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(DatasetError, match="nothing to show yet"):
        sheet([])
    with pytest.raises(DatasetError, match="nothing to show yet"):
        PicturesDataset(path=str(tmp_path), dataset="lowlight_kedro.datasets.figures.AtomicFigureDataset").preview()


@pytest.mark.parametrize("kind", [JobsDataset, PicturesDataset])
def test_the_annotation_is_the_type_that_kedro_viz_looks_for(kind):
    assert getattr(inspect.signature(kind.preview).return_annotation, "__name__", None) == "ImagePreview"
