"""Files appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kedro.io import DatasetError
from kedro_datasets.json import JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.pandas import CSVDataset


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path beside `target`, moved over it when the block ends well and removed when not.

    Raises:
        DatasetError: the folder cannot be written or the disk is full; earlier content of `target` stays.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise DatasetError(f"cannot write {target}: {error.strerror or error}; what was there before is unchanged") from error
    finally:
        temporary.unlink(missing_ok=True)


class _AtomicSave:
    """Mixed in before one of kedro-datasets' local, unversioned datasets: saves through `atomic_path`."""

    _filepath: Any

    def save(self, data: Any) -> None:
        target = self._filepath
        with atomic_path(str(target)) as temporary:
            self._filepath = type(target)(str(temporary))
            try:
                super().save(data)  # type: ignore[misc]
            finally:
                self._filepath = target


class AtomicJSONDataset(_AtomicSave, JSONDataset):
    """kedro-datasets' JSONDataset, written atomically."""


class AtomicCSVDataset(_AtomicSave, CSVDataset):
    """kedro-datasets' CSVDataset, written atomically."""


class AtomicFigureDataset(_AtomicSave, MatplotlibDataset):
    """kedro-datasets' MatplotlibDataset (one figure), written atomically."""
