"""A folder of priors along a training: the newest few, and the best."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import local_path
from lowlight_kedro.datasets.checkpoint import CheckpointDataset
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.snapshots import is_new_best

BEST = "best"


class SnapshotsDataset(AbstractDataset[dict[str, Checkpoint], dict[str, Callable[[], Checkpoint | None]]]):
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

    def load(self) -> dict[str, Callable[[], Checkpoint | None]]:
        """What there is, unread."""
        names = sorted(path.stem for path in self._written()) + ([BEST] if self._file(BEST).exists() else [])
        return {name: partial(self._file(name).load) for name in names}

    def _best(self) -> Checkpoint | None:
        """The best so far; one that cannot be read is as good as none."""
        try:
            return self._file(BEST).load()
        except DatasetError:
            return None

    def save(self, data: dict[str, Checkpoint]) -> None:
        """Add to the folder.

        Raises:
            DatasetError: a file cannot be written; the others stay.
        """
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
