"""The pages of restored frames on disk, with links to the files beside them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from lowlight_kedro.datasets.atomic import LocalDataset, atomic_path
from lowlight_kedro.evaluation.page import Entry, Page, frame_page, index_page

Shown = TypeVar("Shown")


class _HtmlDataset(LocalDataset[Shown, str], Generic[Shown]):
    """One HTML file that links files of JobsDataset's parts.

    Args:
        filepath: the file.
        beside: {part: {path, filename_suffix}} of the files that may be linked, as JobsDataset has them; the rest of each is ignored.
        picture_kb: greatest size of each of its pictures, kB.
    """

    def __init__(self, *, filepath: str, beside: Mapping[str, Mapping[str, Any]], picture_kb: float, metadata: dict | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._picture_kb = picture_kb
        self._beside = {part: (Path(place["path"]), place.get("filename_suffix", "")) for part, place in beside.items()}

    def _link(self, part: str, name: str) -> str:
        """Relative path from here to the file of frame `name`."""
        folder, suffix = self._beside[part]
        return Path(os.path.relpath(folder / f"{name}{suffix}", self._filepath.parent)).as_posix()

    def _html(self, data: Shown) -> str:
        raise NotImplementedError

    def load(self) -> str:
        """The HTML."""
        return self._filepath.read_text(encoding="utf-8")

    def save(self, data: Shown) -> None:
        """Write atomically."""
        html = self._html(data)
        with atomic_path(self._filepath) as temporary:
            temporary.write_text(html, encoding="utf-8", newline="\n")


class PageDataset(_HtmlDataset[Page]):
    """A `Page`, see `evaluation.page.frame_page`."""

    def _html(self, data: Page) -> str:
        return frame_page(data, {part: self._link(part, data.name) for part in self._beside}, self._picture_kb)


class IndexDataset(_HtmlDataset[Sequence[Entry]]):
    """The index of all pages, see `evaluation.page.index_page`; `beside` must name the part `page`."""

    def _html(self, data: Sequence[Entry]) -> str:
        return index_page(data, {entry.name: self._link("page", entry.name) for entry in data}, self._picture_kb)
