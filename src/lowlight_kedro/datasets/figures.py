"""Figures on disk; apart from other files, for matplotlib is slow to import."""

from typing import TYPE_CHECKING

from kedro.io.core import get_filepath_str
from kedro_datasets.matplotlib import MatplotlibDataset

from lowlight_kedro.datasets.atomic import AtomicSave

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
