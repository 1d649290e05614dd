"""Tiles on disk: a folder of stacks and of single tensors."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from numpy.typing import NDArray

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path, content_hash
from lowlight_kedro.datasets.stacks import holds, open_stack, write_stack
from lowlight_kedro.sensor.tile_metadata import tile_files

SUFFIXES = (".npy", ".pt")


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


def write_tile(path: str | Path, tile: NDArray) -> None:
    """Write one tile as a tensor in a `.pt` file, atomically."""
    import torch

    with atomic_path(path) as temporary, temporary.open("wb") as file:  # given a path, torch would store its name
        torch.save(torch.from_numpy(np.ascontiguousarray(tile)), file)


def write_tiles(path: Path, tiles: NDArray) -> None:
    """Write by the suffix of `path`: a stack (N, C, S, S) as `.npy`, left alone if it holds the same; one tile (C, S, S) as `.pt`.

    Raises:
        DatasetError: the name ends otherwise, or the tiles cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise DatasetError(f"a tile file ends in {' or '.join(SUFFIXES)}, got {path.name}")
    if path.suffix == ".pt":
        write_tile(path, tiles)
    elif not holds(path, tiles):
        write_stack(path, tiles)


class TileDataset(LocalDataset[NDArray, NDArray]):
    """One file of tiles, `.npy` or `.pt`; see `write_tiles`."""

    def load(self) -> NDArray:
        """See `TileFile`."""
        return TileFile(self._filepath, self._filepath.name)()

    def save(self, data: NDArray) -> None:
        """See `write_tiles`."""
        write_tiles(self._filepath, data)


@dataclass(frozen=True)
class TileFile:
    """One file, not yet opened: call it for the tile (C, S, S) of a `.pt`, the stack (N, C, S, S) of a `.npy`."""

    path: Path
    name: str

    def __call__(self) -> NDArray:
        """See `read_tile` and `open_stack`."""
        return open_stack(self.path) if self.path.suffix == ".npy" else read_tile(self.path)

    def content_hash(self) -> str:
        """See `atomic.content_hash`; of a file that cannot be read, why not: reading it will say so for its tiles alone."""
        try:
            return content_hash(self.path)
        except OSError as error:
            return str(error)


class TileFolder(Mapping[str, TileFile]):
    """The files of a folder of tiles by their name below it, suffix included; an absolute path finds its file too."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = sorted(_names_below(root))
        self._known = frozenset(self._names)

    def __getitem__(self, name: str) -> TileFile:
        if name in self._known:
            return TileFile(self._root / name, name)
        if Path(name).is_absolute() and (path := Path(name)).is_file():
            inside = path.is_relative_to(self._root.absolute())
            return TileFile(path, path.relative_to(self._root.absolute()).as_posix() if inside else name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def find(self, tile: Mapping[str, Any]) -> TileFile | None:
        """The file that holds the tile of a metadata record: the first of `tile_files` that is there."""
        return next((self[name] for name in tile_files(tile) if name in self), None)


def _names_below(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        yield from ((inside / name).as_posix() for name in files if name.endswith(SUFFIXES) and not name.startswith("."))


class TileFolderDataset(LocalDataset[Mapping[str, NDArray | Callable[[], NDArray]], TileFolder]):
    """All stacks (`.npy`) and single tiles (`.pt`) below a folder.

    Loads lazily, see `TileFolder`; opens nothing. Saves `{name with suffix: array or function that makes it}` beside
    what is there: (N, C, S, S) as `.npy`, (C, S, S) as `.pt`. A stack that already holds the same tiles is left alone.
    """

    def load(self) -> TileFolder:
        """List the folder.

        Raises:
            DatasetError: it does not exist.
        """
        if not self._filepath.is_dir():
            raise DatasetError(f"the tile folder {self._filepath} does not exist; run the preprocessing pipeline, or put tiles there")
        return TileFolder(self._filepath)

    def save(self, data: Mapping[str, NDArray | Callable[[], NDArray]]) -> None:
        """Write the files one by one, each atomically.

        Raises:
            DatasetError: a name ends otherwise, or a tile cannot be written.
        """
        for name, value in data.items():
            write_tiles(self._filepath / name, value() if callable(value) else value)

    def preview(self) -> ImagePreview:
        """For Kedro-Viz: the first tile of each of the first stacks; see `figures.sheet`."""
        from lowlight_kedro.datasets.figures import sheet

        return sheet(sorted(self._filepath.rglob("[!.]*.npy")))
