"""A folder of camera raws as a Kedro dataset."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from lowlight_kedro.datasets.atomic import local_path
from lowlight_kedro.datasets.content import content_hash
from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.levels import WhiteFrom

RAW_SUFFIXES = (
    ".arw", ".raf", ".dng", ".nef", ".cr2", ".cr3", ".orf", ".rw2", ".pef", ".srw", ".kdc", ".raw", ".nrw", ".crw", ".rwl", ".3fr", ".fff",
    ".iiq", ".mos", ".mef", ".mrw", ".erf", ".dcr", ".sr2", ".srf", ".gpr", ".x3f",
)  # fmt: skip


@dataclass(frozen=True)
class RawFile:
    """One raw, not yet opened: call it for the `Frame`, `header()` for what it says of itself."""

    path: Path
    white: WhiteFrom = "measured"

    def __call__(self) -> Frame:
        """See `read_frame`."""
        return read_frame(self.path, self.white)

    def header(self) -> dict[str, Any]:
        """See `read_header`."""
        return read_header(self.path)

    def content_hash(self) -> str:
        """BLAKE2b of the file's bytes, 32 hexadecimal digits, whatever its name and time.

        Raises:
            RawReadError: the file cannot be read.
        """
        try:
            return content_hash(self.path)
        except OSError as error:
            raise RawReadError(f"{self.path}: {error.strerror or error}") from error


class RawFolderDataset(AbstractDataset[None, dict[str, RawFile]]):
    """All raws below a folder, lazily: `{relative path without suffix: RawFile}`, sorted by name.

    Args:
        filepath: the folder; searched recursively, links followed.
        suffixes: file endings that count as raw, case ignored.
        white: `measured`, or `tag` to take the files' white levels as they are; see `read_frame`.
    """

    def __init__(
        self, *, filepath: str, suffixes: list[str] | None = None, white: WhiteFrom = "measured", metadata: dict | None = None
    ) -> None:
        if white not in ("measured", "tag"):
            raise DatasetError(f"white must be 'measured' or 'tag', got {white!r}")
        self._folder, self._white = local_path(filepath), white
        self._suffixes = tuple(suffix.lower() for suffix in suffixes or RAW_SUFFIXES)
        self.metadata = metadata

    def load(self) -> dict[str, RawFile]:
        """List the folder.

        Raises:
            DatasetError: the folder is missing or holds no raw, or two raws differ only in their ending.
        """
        found = [Path(at, name) for at, _, names in os.walk(self._folder, followlinks=True) for name in names if not name.startswith(".")]
        paths = sorted(path for path in found if path.suffix.lower() in self._suffixes and path.is_file())
        if not paths:
            state = "holds no raw" if self._folder.is_dir() else "does not exist"
            raise DatasetError(
                f"the raw folder {self._folder} {state}; put files ending in {', '.join(self._suffixes)} there, "
                "or point `raw` in conf/<env>/globals.yml at your folder"
            )
        raws: dict[str, RawFile] = {}
        for path in paths:
            name = path.relative_to(self._folder).with_suffix("").as_posix()
            if name in raws:
                raise DatasetError(f"{raws[name].path} and {path} would have one name, {name}; rename or move one of them")
            raws[name] = RawFile(path, self._white)
        return raws

    def save(self, data: None) -> None:
        """Raws are never written."""
        raise DatasetError("a raw folder is read-only")

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder), "suffixes": self._suffixes}
