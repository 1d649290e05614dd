"""The page of a restored frame on disk, with links to the files beside it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from lowlight_kedro.datasets.atomic import atomic_path
from lowlight_kedro.evaluation.page import Page, frame_page


class PageDataset(AbstractDataset[Page, str]):
    """A `Page` as one HTML file, see `evaluation.page.frame_page`.

    Args:
        filepath: the file.
        beside: {part: {path, filename_suffix}} of the files to be linked, as JobsDataset has its parts; the rest of each is ignored.
        picture_kb: greatest size of each of its pictures, kB.
    """

    def __init__(self, *, filepath: str, beside: Mapping[str, Mapping[str, Any]], picture_kb: float, metadata: dict | None = None) -> None:
        self._filepath, self._picture_kb, self.metadata = Path(filepath), picture_kb, metadata
        self._beside = {part: (Path(place["path"]), place.get("filename_suffix", "")) for part, place in beside.items()}

    def _links(self, name: str) -> dict[str, str]:
        """Part to relative path of the file of frame `name`."""
        files = {part: folder / f"{name}{suffix}" for part, (folder, suffix) in self._beside.items()}
        return {part: Path(os.path.relpath(file, self._filepath.parent)).as_posix() for part, file in files.items()}

    def load(self) -> str:
        """The HTML."""
        return self._filepath.read_text(encoding="utf-8")

    def save(self, data: Page) -> None:
        """Write atomically."""
        html = frame_page(data, self._links(data.name), self._picture_kb)
        with atomic_path(self._filepath) as temporary:
            temporary.write_text(html, encoding="utf-8", newline="\n")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
