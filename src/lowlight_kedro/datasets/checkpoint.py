"""Checkpoints: one safetensors file, the description as JSON in its header, so that both are one atomic write."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractVersionedDataset, DatasetError, Version

from lowlight_kedro.datasets.atomic import OwnVersion, atomic_path, local_path
from lowlight_kedro.datasets.safetensors_file import KEY, CheckpointReadError, read_checkpoint

if TYPE_CHECKING:  # torch takes a second to import; a catalog is made before anything is loaded
    from lowlight_kedro.diffusion.checkpoint import Checkpoint


PACKAGE = Path(__file__).resolve().parents[1]


def remove_leftovers(target: Path) -> None:
    """Temporary files that killed writers of `target` left beside it; a state may be gigabytes."""
    for path in target.parent.glob(f".*.{target.name}"):
        number = path.name[1:].split(".", 1)[0]
        if number.isdecimal() and not _is_running(int(number)):
            with suppress(OSError):
                path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


class CheckpointDataset(OwnVersion, AbstractVersionedDataset[Any, Any]):
    """A `Checkpoint` in a safetensors file. With `optional` a missing file loads as None; what comes with the package is never written."""

    def __init__(
        self, *, filepath: str, optional: bool = False, version: Version | None = None, metadata: dict | None = None
    ) -> None:  # fmt: skip
        super().__init__(filepath=local_path(filepath), version=version)  # type: ignore[arg-type] # a path that can be opened
        self._optional = optional
        self.metadata = metadata

    def load(self) -> "Checkpoint | None":
        """Read the file.

        Raises:
            DatasetError: it is missing, torn, or no checkpoint of ours (a pickle is never opened).
        """
        if self._optional and not self._exists():
            return None
        try:
            return read_checkpoint(Path(self._get_load_path()))
        except CheckpointReadError as error:
            raise DatasetError(str(error)) from error

    def save(self, data: "Checkpoint") -> None:
        """Write atomically.

        Raises:
            DatasetError: the file is one of the package. OutputError: it cannot be written; the old one stays.
        """
        from safetensors.torch import save_file

        target = Path(self._get_save_path())
        if target.resolve().is_relative_to(PACKAGE):
            raise DatasetError(
                f"{target} comes with the package and is not to be written; train in another environment, with its own `prior`"
            )
        remove_leftovers(target)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in data.tensors.items()}
        with atomic_path(target, needed=sum(tensor.nbytes for tensor in tensors.values())) as temporary:
            save_file(tensors, temporary, {KEY: json.dumps(data.description)})

    def _exists(self) -> bool:
        try:
            return Path(self._get_load_path()).is_file()
        except DatasetError:  # no version yet
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
