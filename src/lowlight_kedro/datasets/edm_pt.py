"""The training set of the unconditional prior: clean tiles, empty labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from torch import Tensor, from_numpy, zeros
from torch.utils.data import Dataset

from lowlight_kedro.datasets.tiles import read_tile
from lowlight_kedro.sensor.metadata import clean_verdict, fingerprint, list_tiles, tile_files


class EDMPTDataset(Dataset[tuple[Tensor, Tensor]]):
    """Clean tiles of one split: `dataset[i]` is (image float32 (C, S, S) in [-1, 1], label float32 (0,)).

    Reads what the preprocessing pipeline writes and the predecessor's layout: metadata with `tiles` or
    `files[].tiles`; a tile at its `pt_path` (absolute, or below `data_root`), at `<data_root>/<tile_id>.pt`
    or at `<data_root>/long/<tile_id>.pt`.

    Args:
        data_root: folder of the `.pt` files.
        metadata_json: the metadata file.
        split: which split; tiles without one belong to every split.
        use_labels: must be False: the prior is P(x_clean), it has no condition.
        label_dim: must be 0, for the same reason.
        image_size: expected side S in pixels.
        channels: expected number of channels C.

    Raises:
        ValueError: labels were asked for, or there is no clean tile of that split.
        DatasetError: (on access) a tile file is missing, or has another shape or type.
    """

    def __init__(
        self, data_root: str | Path, metadata_json: str | Path, split: str = "train", *,
        use_labels: bool = False, label_dim: int = 0, image_size: int = 256, channels: int = 3,
    ) -> None:  # fmt: skip
        if use_labels or label_dim:
            raise ValueError(
                f"EDMPTDataset has no labels: the prior P(x_clean) is unconditional; got use_labels={use_labels}, "
                f"label_dim={label_dim}, expected use_labels=False, label_dim=0"
            )
        self.data_root = Path(data_root)
        self.shape = (channels, image_size, image_size)
        metadata = json.loads(Path(metadata_json).read_text(encoding="utf-8"))
        self.fingerprint = fingerprint(metadata)
        tiles = [tile for tile in list_tiles(metadata) if tile.get("split", split) == split]
        self.tiles = [tile for tile in tiles if clean_verdict(tile)[0]]
        if not self.tiles:
            raise ValueError(f"{metadata_json}: no clean tile in split {split!r} ({len(tiles)} tiles there, none clean)")

    def __len__(self) -> int:
        return len(self.tiles)

    def path(self, index: int) -> Path:
        """Where the tile's file lies: the first of the places above that exists."""
        tile = self.tiles[index]
        candidates = [self.data_root / name for name in tile_files(tile)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise DatasetError(f"tile {tile['tile_id']} is missing; looked for {', '.join(map(str, candidates))}")
        return found

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.path(index)
        image = read_tile(path)
        if image.shape != self.shape or image.dtype != np.float32:
            raise DatasetError(f"{path}: got {image.dtype} {image.shape}, expected float32 {self.shape}")
        return from_numpy(image), zeros(0)


class EDMPTKedroDataset(AbstractDataset[None, EDMPTDataset | None]):
    """`EDMPTDataset` as a catalog entry: the same arguments under the same names.

    With `optional: true` a split without tiles loads as None.
    """

    def __init__(
        self, *, data_root: str, metadata_json: str, split: str = "train", image_size: int = 256,
        optional: bool = False, metadata: dict | None = None,
    ) -> None:  # fmt: skip
        self._arguments: dict[str, Any] = {"data_root": data_root, "metadata_json": metadata_json, "split": split, "image_size": image_size}
        self._optional = optional
        self.metadata = metadata

    def load(self) -> EDMPTDataset | None:
        """Open the split."""
        try:
            return EDMPTDataset(**self._arguments)
        except ValueError:
            if self._optional:
                return None
            raise

    def save(self, data: None) -> None:
        """Tiles are written by the preprocessing pipeline."""
        raise DatasetError("a training set is read-only; run the preprocessing pipeline to make one")

    def _describe(self) -> dict[str, Any]:
        return self._arguments
