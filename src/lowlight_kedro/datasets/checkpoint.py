"""Checkpoints, each one safetensors file with the description as JSON in its header, one atomic write; and folders of snapshots."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, AbstractVersionedDataset, DatasetError, Version

from lowlight_kedro.datasets.atomic import OwnVersion, atomic_path, local_path
from lowlight_kedro.datasets.safetensors_file import KEY, CheckpointReadError, read_checkpoint

if TYPE_CHECKING:  # torch takes a second to import; a catalog is made before anything is loaded
    from lowlight_kedro.diffusion.checkpoint import Checkpoint


BEST = "best"  # name of the best snapshot
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


class SnapshotsDataset(AbstractDataset[dict[str, Any], dict[str, Callable[[], Any]]]):
    """Snapshots by name, one `<name>.safetensors` each, like a partitioned dataset.

    Saving {name: snapshot} adds to the folder, copies a snapshot to `best.safetensors` if it is better than that one, then
    removes all but the `keep` that were written last (null: keeps all) and the best; saving {} changes nothing. Loading gives
    {name: function that reads it}, the best under `best`. Other files in the folder are left alone.

    A snapshot may be written again: the run that was killed after it goes on from an earlier state.
    """

    def __init__(self, *, path: str, keep: int | None, metadata: dict | None = None) -> None:
        if keep is not None and (type(keep) is not int or keep < 0):
            raise DatasetError(f"keep must be a whole number from 0 on, or null to keep all, got keep={keep!r}")
        self._path, self._keep = local_path(path), keep
        self.metadata = metadata

    def _file(self, name: str) -> CheckpointDataset:
        return CheckpointDataset(filepath=str(self._path / f"{name}.safetensors"))

    def _written(self) -> list[Path]:
        """The snapshots but the best, oldest first."""
        return sorted(self._path.glob("prior-*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def load(self) -> "dict[str, Callable[[], Checkpoint | None]]":
        """What there is, unread."""
        names = sorted(path.stem for path in self._written()) + ([BEST] if self._file(BEST).exists() else [])
        return {name: partial(self._file(name).load) for name in names}

    def _best(self) -> "Checkpoint | None":
        """The best so far; one that cannot be read is as good as none."""
        try:
            return self._file(BEST).load()
        except DatasetError:
            return None

    def save(self, data: "dict[str, Checkpoint]") -> None:
        """Add to the folder.

        Raises:
            DatasetError: a file cannot be written; the others stay.
        """
        from lowlight_kedro.diffusion.prior import is_new_best

        for name, snapshot in data.items():
            self._file(name).save(snapshot)
            if is_new_best(snapshot, self._best()):
                self._file(BEST).save(snapshot)
        written = self._written() if data and self._keep is not None else []
        for path in written[: max(len(written) - (self._keep or 0), 0)]:
            path.unlink(missing_ok=True)

    def _exists(self) -> bool:
        return bool(self.load())

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "keep": self._keep}
