"""Pictures on disk."""

from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path


class ImageDataset(AbstractDataset[NDArray, NDArray]):
    """An image (3, H, W) in [0, 1]: 16 bits a value as `.tif`, 8 bits as `.png`; values outside are clipped."""

    def __init__(self, *, filepath: str, metadata: dict | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> NDArray[np.float32]:
        """Read back as float32 in [0, 1]."""
        import tifffile
        from PIL import Image

        read = tifffile.imread if self._filepath.suffix == ".tif" else Image.open
        pixels = np.asarray(read(self._filepath))
        return (pixels.transpose(2, 0, 1) / np.iinfo(pixels.dtype).max).astype(np.float32)

    def save(self, data: NDArray) -> None:
        """Write atomically."""
        import tifffile
        from PIL import Image

        if self._filepath.suffix not in (".tif", ".png"):
            raise DatasetError(f"an image is a .tif (16 bits) or a .png (8 bits), got {self._filepath}")
        kind: Any = np.uint16 if self._filepath.suffix == ".tif" else np.uint8
        pixels = np.rint(np.clip(data, 0, 1).transpose(1, 2, 0) * np.iinfo(kind).max).astype(kind)
        with atomic_path(self._filepath) as temporary:
            if kind is np.uint16:
                tifffile.imwrite(temporary, pixels, photometric="rgb", compression="zlib", software="lowlight_kedro")
            else:
                Image.fromarray(pixels).save(temporary, format="PNG")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
