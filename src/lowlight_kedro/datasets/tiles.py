"""Tiles on disk: one tensor per `.pt` file."""

from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import atomic_path


def read_tile(path: str | Path) -> Any:
    """The tensor in a `.pt` file, as a NumPy array; pickled code is refused.

    Raises:
        DatasetError: the file is missing, torn, or not a tensor.
    """
    import torch

    try:
        tile = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise DatasetError(f"{path}: not a readable tensor file ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    if not isinstance(tile, torch.Tensor):
        raise DatasetError(f"{path}: holds {type(tile).__name__}, expected a tensor")
    return tile.numpy()


class TileDataset(AbstractDataset[NDArray, NDArray]):
    """One tile, (C, H, W) float32, as a torch tensor in a `.pt` file."""

    def __init__(self, *, filepath: str, metadata: dict | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> NDArray:
        """See `read_tile`."""
        return read_tile(self._filepath)

    def save(self, data: NDArray) -> None:
        """Write atomically."""
        import torch

        with atomic_path(self._filepath) as temporary, temporary.open("wb") as file:  # given a path, torch would store its name
            torch.save(torch.from_numpy(np.ascontiguousarray(data)), file)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
