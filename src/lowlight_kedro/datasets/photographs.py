"""A folder of finished photographs as a Kedro dataset."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kedro.io import DatasetError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lowlight_kedro.datasets.atomic import LocalDataset, content_hash

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Photograph:
    """One photograph, not yet opened: call it for its pixels (H, W, 3), uint8 sRGB."""

    path: Path

    def __call__(self) -> NDArray[np.uint8]:
        """Decode.

        Raises:
            DatasetError: the file is no picture that can be read.
        """
        try:
            with Image.open(self.path) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{self.path}: no readable picture: {error}") from error

    def content_hash(self) -> str:
        """See `atomic.content_hash`."""
        return content_hash(self.path)


class PhotographFolderDataset(LocalDataset[None, dict[str, Photograph]]):
    """All pictures below a folder, lazily: `{relative path without suffix: Photograph}`, sorted by name.

    Args:
        filepath: the folder; searched recursively.
    """

    def load(self) -> dict[str, Photograph]:
        """List the folder.

        Raises:
            DatasetError: the folder is missing or holds no picture.
        """
        paths = sorted(path for path in self._filepath.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
        if not paths:
            state = "holds no picture" if self._filepath.is_dir() else "does not exist"
            raise DatasetError(
                f"the folder of photographs {self._filepath} {state}; put files ending in {', '.join(SUFFIXES)} there, "
                "or point `photograph_folder` in conf/<env>/globals.yml at your folder"
            )
        return {path.relative_to(self._filepath).with_suffix("").as_posix(): Photograph(path) for path in paths}

    def save(self, data: None) -> None:
        """Never: photographs are an input."""
        raise DatasetError("photographs are read, never written")
