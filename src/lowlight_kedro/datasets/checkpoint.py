"""Checkpoints: one safetensors file, the description as JSON in its header, so that both are one atomic write."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.diffusion.checkpoint import Checkpoint

KEY = "lowlight_kedro"


class CheckpointDataset(AbstractDataset[Checkpoint, Checkpoint | None]):
    """A `Checkpoint` in a safetensors file. With `optional: true` a missing file loads as None; `frozen: true` is never written."""

    def __init__(self, *, filepath: str, optional: bool = False, frozen: bool = False, metadata: dict | None = None) -> None:
        self._filepath = Path(filepath)
        self._optional, self._frozen = optional, frozen
        self.metadata = metadata

    def load(self) -> Checkpoint | None:
        """Read the file.

        Raises:
            DatasetError: it is missing, torn, or no checkpoint of ours (a pickle is never opened).
        """
        from safetensors import SafetensorError, safe_open

        if self._optional and not self._filepath.exists():
            return None
        if not self._filepath.exists():
            raise DatasetError(f"there is no checkpoint {self._filepath}; run `kedro run --pipelines training` first")
        try:
            with safe_open(self._filepath, framework="pt") as file:
                description = json.loads((file.metadata() or {})[KEY])
                return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, description)  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise DatasetError(f"{self._filepath}: not a safetensors checkpoint of lowlight_kedro ({error})") from error

    def save(self, data: Checkpoint) -> None:
        """Write atomically.

        Raises:
            DatasetError: the catalog says that the file is frozen.
        """
        from safetensors.torch import save_file

        if self._frozen:
            raise DatasetError(f"{self._filepath} is not to be written; train in another environment, with its own `prior`")

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in data.tensors.items()}
        with atomic_path(self._filepath) as temporary:
            save_file(tensors, temporary, {KEY: json.dumps(data.description)})

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
