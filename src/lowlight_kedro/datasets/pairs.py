"""The pairs of exposures: what data sets publish of them beside their raws, and our table."""

from typing import Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import AtomicCSVDataset, local_path
from lowlight_kedro.sensor.scenes import PAIR_COLUMNS

NO_PAIRS = pd.DataFrame(columns=list(PAIR_COLUMNS))


class PairsDataset(AtomicCSVDataset):
    """The table of pairs as CSV; where it was not made yet, it loads without rows."""

    def load(self) -> pd.DataFrame:
        """The table, with the columns of `scenes.pair`."""
        return super().load() if self._exists() else NO_PAIRS.copy()


class PairListsDataset(AbstractDataset[None, dict[str, str]]):
    """Text of all lists of pairs below a folder: `{relative path: text}`; empty where there is none.

    Args:
        filepath: the raw folder.
        pattern: of the lists' names.
    """

    def __init__(self, *, filepath: str, pattern: str = "*_list.txt", metadata: dict | None = None) -> None:
        self._folder, self._pattern = local_path(filepath), pattern
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        """Read them, sorted by path."""
        return {path.relative_to(self._folder).as_posix(): path.read_text() for path in sorted(self._folder.rglob(self._pattern))}

    def save(self, data: None) -> None:
        """Lists are never written."""
        raise DatasetError("published lists of pairs are read-only")

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder), "pattern": self._pattern}
