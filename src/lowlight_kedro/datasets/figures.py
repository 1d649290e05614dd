"""Figures on disk, and what Kedro-Viz shows of a folder of pictures or tiles: the first few of them, small, on one sheet.

Apart from other files, for matplotlib is slow to import.

"""

import base64
from collections.abc import Iterable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from kedro.io import DatasetError
from kedro.io.core import get_filepath_str
from kedro_datasets._typing import ImagePreview
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.partitions import PartitionedDataset

from lowlight_kedro.datasets.atomic import AtomicSave
from lowlight_kedro.datasets.stacks import decode, open_stack

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


class AtomicFigureDataset(AtomicSave, MatplotlibDataset):
    """kedro-datasets' MatplotlibDataset (one figure), written atomically; it loads as the picture that it became, which notebooks show."""

    def load(self) -> "Picture":  # type: ignore[override]
        """The picture, whole in memory."""
        from PIL import Image

        with self._fs.open(get_filepath_str(self._get_load_path(), self._protocol), "rb") as file:
            picture = Image.open(file)
            picture.load()
        return picture


WIDTH, GAP = 960, 6  # of a sheet, and what lies between its pictures, pixels


def _small(path: Path, side: int) -> "Picture":
    """One picture, or the first tile of a stack (linear light, shown with a gamma of 2)."""
    from PIL import Image

    if path.suffix == ".npy":
        light = (decode(np.array(open_stack(path)[0])) + 1) / 2
        picture = Image.fromarray(np.rint(255 * np.sqrt(light.clip(0, 1))).astype(np.uint8).transpose(1, 2, 0))
    else:
        picture = Image.open(path).convert("RGB")
    picture.thumbnail((side, side))
    return picture


def sheet(paths: Iterable[Path], columns: int = 3) -> ImagePreview:
    """The first pictures (PNG, JPEG) or stacks of tiles (.npy) as one PNG, base64: two rows of them, or of one column the first alone.

    Raises:
        DatasetError: there is none.
    """
    from PIL import Image

    pictures = [_small(path, WIDTH // columns) for path in islice(paths, 2 * columns if columns > 1 else 1)]
    if not pictures:
        raise DatasetError("nothing to show yet; run the pipeline that writes it first")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = max(picture.width for picture in pictures) + GAP, max(picture.height for picture in pictures) + GAP
    whole = Image.new("RGB", (columns * width - GAP, rows * height - GAP), "white")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    written = BytesIO()
    whole.save(written, "PNG")
    return ImagePreview(base64.b64encode(written.getvalue()).decode())


class PicturesDataset(PartitionedDataset):
    """kedro-datasets' PartitionedDataset of figures as PNG; Kedro-Viz shows the first, wide ones."""

    def preview(self) -> ImagePreview:
        """See `sheet`."""
        return sheet(sorted(Path(str(self._path)).rglob("[!.]*.png")), columns=1)
