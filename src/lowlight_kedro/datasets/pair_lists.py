"""Published lists of pairs beside the raws."""

from typing import Any

from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import local_path


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
