"""The training set of the unconditional prior: clean tiles, empty labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview
from numpy.typing import NDArray
from torch import Tensor, from_numpy, zeros
from torch.utils.data import Dataset

from lowlight_kedro.datasets.atomic import AtomicJSONDataset, atomic_path, local_path
from lowlight_kedro.datasets.stacks import OpenStacks, decode
from lowlight_kedro.datasets.tiles import TileFolder, TileFolderDataset, read_tile
from lowlight_kedro.sensor.tile_metadata import clean_verdicts, fingerprint, tile_files, tile_table


def _read_metadata(path: str | Path) -> dict[str, Any]:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: not readable metadata of tiles ({error}), expected JSON; first run the pipeline that makes them: preprocessing, "
            "photographs or import_tiles"
        ) from error


class EDMPTDataset(Dataset[tuple[Tensor, Tensor]]):
    """Clean tiles of one split: `dataset[i]` is (image float32 (C, S, S) in [-1, 1], label float32 (0,)).

    Reads stacks, as the preprocessing pipeline writes them, and the predecessor's layout: metadata with `tiles` or
    `files[].tiles`; a tile at number `index` of its `stack`, or at its `pt_path` (each absolute, or below
    `data_root`), at `<data_root>/<tile_id>.pt` or at `<data_root>/long/<tile_id>.pt`.

    Args:
        data_root: folder of the stacks and `.pt` files.
        metadata_json: the metadata file.
        split: which split; tiles without one belong to every split.
        use_labels: must be False: the prior is P(x_clean), it has no condition.
        label_dim: must be 0, for the same reason.
        image_size: expected side S in pixels.
        channels: expected number of channels C.
        metadata: what is in `metadata_json`, where it was read already.

    Attributes:
        tiles: a row for each tile, see `sensor.tile_metadata.tile_table`; some 100 bytes each, also in every worker of a loader.
        tile_ids: their names.
        fingerprint: of all tiles of the metadata, see `sensor.tile_metadata.fingerprint`.

    Raises:
        ValueError: labels were asked for, or there is no clean tile of that split.
        DatasetError: the metadata is missing or torn; (on access) a file is missing or torn, or has another shape or type.
    """

    def __init__(
        self, data_root: str | Path, metadata_json: str | Path, split: str = "train", *,
        use_labels: bool = False, label_dim: int = 0, image_size: int = 256, channels: int = 3, metadata: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if use_labels or label_dim:
            raise ValueError(
                f"EDMPTDataset has no labels: the prior P(x_clean) is unconditional; got use_labels={use_labels}, "
                f"label_dim={label_dim}, expected use_labels=False, label_dim=0"
            )
        self.data_root = Path(data_root)
        self.shape = (channels, image_size, image_size)
        metadata = _read_metadata(metadata_json) if metadata is None else metadata
        table = tile_table(metadata)
        self.fingerprint = fingerprint(metadata, table)
        of_split = (table["split"].isna() | (table["split"] == split)).to_numpy()
        clean, _ = clean_verdicts(table)
        if not (of_split & clean).any():
            raise ValueError(
                f"{metadata_json}: no clean tile in split {split!r} ({of_split.sum()} tiles there, none clean), expected one or more; "
                "put clean raws into that split and run preprocessing again"
            )
        self._stacks = OpenStacks()
        self._take(table[of_split & clean])

    def _take(self, tiles: pd.DataFrame) -> None:
        """Have these rows of a `tile_table`; what is asked for at every access is kept as arrays."""
        self.tiles = tiles.reset_index(drop=True)
        self.tile_ids: NDArray[np.object_] = self.tiles["tile_id"].to_numpy()
        self._index = self.tiles["index"].to_numpy()
        self._stack = self.tiles["stack"].cat.codes.to_numpy()  # -1: in a file of its own
        self._stack_names = self.tiles["stack"].cat.categories

    def first(self, count: int) -> "EDMPTDataset":
        """Only the first `count` tiles."""
        one = copy(self)
        one._take(self.tiles[:count])  # noqa: SLF001 - of its own kind
        return one

    def __len__(self) -> int:
        return len(self.tile_ids)

    def path(self, index: int) -> Path:
        """Where the tile's file lies: the first of the places above that exists."""
        tile = {"tile_id": self.tile_ids[index], "pt_path": self.tiles["pt_path"].iloc[index], "stack": self._stack_of(index)}
        candidates = [self.data_root / name for name in tile_files(tile)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise DatasetError(f"tile {tile['tile_id']} is missing; looked for {', '.join(map(str, candidates))}")
        return found

    def _stack_of(self, index: int) -> str | None:
        code = self._stack[index]
        return self._stack_names[code] if code >= 0 else None

    def _in_stack(self, index: int) -> NDArray:
        """A view of a tile in a stack, uint16 or float32."""
        name, number = self.tile_ids[index], self._index[index]
        path = f"{self.data_root / str(self._stack_of(index))}"
        stack = self._stacks(path)
        if stack.shape[1:] != self.shape or stack.dtype not in (np.uint16, np.float32):
            raise DatasetError(f"{path}: got {stack.dtype} {stack.shape}, expected uint16 or float32 (N, {str(self.shape)[1:]}")
        if not 0 <= number < len(stack):
            raise DatasetError(f"{path}: tile {name} is number {number} of {len(stack)}, expected 0 to {len(stack) - 1}")
        return stack[number]

    def _alone(self, index: int) -> NDArray:
        """A tile in a file of its own."""
        path = self.path(index)
        image = read_tile(path)
        if image.shape != self.shape or image.dtype != np.float32:
            raise DatasetError(f"{path}: got {image.dtype} {image.shape}, expected float32 {self.shape}")
        return image

    def _in_file_order(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray]]:
        """(position in `indices`, tile as it is stored), file by file."""
        for position in np.lexsort((self._index[indices], self._stack[indices])):
            index = indices[position]
            yield position, self._in_stack(index) if self._stack[index] >= 0 else self._alone(index)

    def stored(self, indices: Sequence[int]) -> Tensor:
        """Tiles (B, C, S, S) as they are stored, for `stacks.decode` on any device: uint16, or float32 if one of them is."""
        batch: NDArray = np.empty((len(indices), *self.shape), np.uint16)
        for position, tile in self._in_file_order(indices):
            if batch.dtype == np.uint16 and tile.dtype != np.uint16:
                batch = decode(batch)
            if batch.dtype == tile.dtype:
                batch[position] = tile
            else:
                decode(tile, out=batch[position])
        return from_numpy(batch)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """What `dataset[i]` gives for several i, each file read once (torch's DataLoader asks for this)."""
        batch = np.empty((len(indices), *self.shape), np.float32)
        for position, tile in self._in_file_order(indices):
            decode(tile, out=batch[position])
        return [(image, zeros(0)) for image in from_numpy(batch)]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]


@dataclass(frozen=True)
class TileSet:
    """Tiles as one thing: what their metadata says, the folder of their files, and what training reads of them.

    Attributes:
        metadata: the whole of it, see `sensor.tile_metadata`.
        folder: of the stacks and `.pt` files.
        metadata_json: where the metadata lies.
        image_size: side of a tile, pixels.
    """

    metadata: dict[str, Any]
    folder: Path
    metadata_json: Path
    image_size: int

    def files(self) -> TileFolder:
        """The files of the tiles, not yet opened.

        Raises:
            DatasetError: there is no such folder.
        """
        return TileFolderDataset(filepath=str(self.folder)).load()

    def split(self, name: str) -> EDMPTDataset:
        """The clean tiles of one split, see `EDMPTDataset`."""
        return EDMPTDataset(self.folder, self.metadata_json, name, image_size=self.image_size, metadata=self.metadata)


class TileSetDataset(AbstractDataset[dict[str, Any], TileSet]):
    """The catalog entry `tiles`: the metadata is saved by who made the tiles, and a `TileSet` is loaded.

    So whoever reads tiles, their metadata or a split of them waits in Kedro's order for who writes them.

    Args:
        path: folder of the stacks and `.pt` files.
        metadata_json: the metadata file.
        image_size: side of a tile, pixels.
        metadata: `made_by` is the pipeline that is told where there are no tiles.
    """

    def __init__(self, *, path: str, metadata_json: str, image_size: int, metadata: dict | None = None) -> None:
        self._folder, self._json = local_path(path), local_path(metadata_json)
        self._described = AtomicJSONDataset(filepath=self._json.as_posix(), metadata=metadata)
        self._image_size = image_size
        self.metadata = metadata

    def load(self) -> TileSet:
        """Read the metadata; opens no tile."""
        return TileSet(self._described.load(), self._folder, self._json, self._image_size)

    def save(self, data: dict[str, Any]) -> None:
        """Write the metadata; the files are there before it."""
        with atomic_path(self._json) as path:
            path.write_text(json.dumps(data), encoding="utf-8")  # as a whole: json.dump takes ten times as long

    def preview(self) -> ImagePreview:
        """For Kedro-Viz: the first tile of each of the first stacks; see `figures.sheet`."""
        return TileFolderDataset(filepath=str(self._folder)).preview()

    def _exists(self) -> bool:
        return self._json.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": self._folder.as_posix(), "metadata_json": str(self._json), "image_size": self._image_size}
