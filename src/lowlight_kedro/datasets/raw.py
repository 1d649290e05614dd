"""Raws as Kedro datasets: a folder of them, single ones by name, and the tables that say which of them are pairs."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro.io.core import parse_dataset_definition

from lowlight_kedro.datasets.atomic import AtomicCSVDataset, content_hash, local_path
from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.levels import WhiteFrom
from lowlight_kedro.sensor.scenes import PAIR_COLUMNS

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


LONGEST = 200  # bytes of a name; file systems take 255, with the ending and that of a temporary file


def _apart(paths: list[Path]) -> dict[str, Path]:
    """Names for paths that would share one: as few of their last parts as tell them apart, ending and all."""
    parts = [path.resolve().parts[1:] for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["_".join(part[-count:]).replace(".", "_") for part in parts]
        if len({name.casefold() for name in names}) == len(names):
            return dict(zip(names, paths, strict=True))
    raise DatasetError(f"{paths[0]} and {paths[1]} would have one name whatever is added; rename one of them")


def shortened(name: str) -> str:
    """`name` with its last part cut to LONGEST bytes, the end of it replaced by a hash: results need room for their endings."""
    folder, _, last = name.rpartition("/")
    held = last.encode()
    if len(held) <= LONGEST:
        return name
    cut = held[: LONGEST - 9].decode(errors="ignore") + "_" + hashlib.sha256(held).hexdigest()[:8]
    return f"{folder}/{cut}" if folder else cut


def unique_names(wanted: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """{name: path}, each path once, no two names alike even where upper and lower case are one.

    A name that several files want goes to none of them: each gets its ending too, and its folders as far as needed.

    Raises:
        DatasetError: names cannot be told apart.
    """
    groups, seen = defaultdict(list), set()
    for name, path in wanted:
        if path.resolve() not in seen:
            seen.add(path.resolve())
            short = shortened(name)
            groups[short.casefold()].append((short, path))
    named: dict[str, Path] = {}
    for group in groups.values():
        for name, path in (dict(group) if len(group) == 1 else _apart([path for _, path in group])).items():
            if any(name.casefold() == other.casefold() for other in named):
                raise DatasetError(f"{named.get(name, name)} and {path} would have one name, {name}; rename one of them")
            named[name] = path
    return dict(sorted(named.items()))


class NamedRawsDataset(AbstractDataset[None, Mapping[str, Any]]):
    """`{name: RawFile}` of named files and of all raws below named folders; without any, what another dataset gives.

    A named file is taken whatever its ending, and also where it is not there: whoever reads it says what is wrong. Its name is
    its file name without ending, that of a raw in a folder its path below it; see `unique_names`.

    Args:
        named: a file or folder, or a list of them; null = none.
        otherwise: definition of the dataset that is used then.
        suffixes: file endings that count as raw in folders, case ignored.
        skip: patterns of file names that are left out of folders, as results of an earlier run.
        white: see `RawFolderDataset`.
    """

    def __init__(
        self, *, named: str | list[str] | None = None, otherwise: dict[str, Any] | None = None, suffixes: list[str] | None = None,
        skip: list[str] | None = None, white: WhiteFrom = "measured", metadata: dict | None = None,
    ) -> None:  # fmt: skip
        self._named = [local_path(place).expanduser() for place in ([named] if isinstance(named, str) else named or [])]
        self._otherwise: Any = None
        if otherwise:
            kind, arguments = parse_dataset_definition(dict(otherwise))
            self._otherwise = kind(**arguments)
        self._suffixes, self._skip, self._white = tuple(map(str.lower, suffixes or RAW_SUFFIXES)), tuple(skip or ()), white
        self.metadata = metadata

    def load(self) -> Mapping[str, Any]:
        """List them.

        Raises:
            DatasetError: nothing was named, a named folder holds no raw, or two files cannot be told apart.
        """
        if self._named:
            return {name: RawFile(path, self._white) for name, path in unique_names(self._wanted()).items()}
        if self._otherwise is None:
            raise DatasetError("no raw was named; give --params inference.input=FILE_OR_FOLDER")
        return self._otherwise.load()

    def _wanted(self) -> Iterator[tuple[str, Path]]:
        for place in self._named:
            if not place.is_dir():
                yield place.stem, place
                continue
            found = self._raws(place)
            if not found:
                raise DatasetError(f"the folder {place} holds no raw; raws end in {', '.join(self._suffixes)}, or name the file itself")
            yield from ((path.relative_to(place).with_suffix("").as_posix(), path) for path in found)

    def _raws(self, folder: Path) -> list[Path]:
        """All below `folder`, links to folders followed, hidden ones left out."""
        found = [Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names]
        return sorted(path for path in found if self._is_raw(path))

    def _is_raw(self, path: Path) -> bool:
        name = path.name
        skipped = name.startswith(".") or any(fnmatch(name.lower(), pattern) for pattern in self._skip)
        return not skipped and path.suffix.lower() in self._suffixes

    def save(self, data: None) -> None:
        """Raws are never written."""
        raise DatasetError("raws are read-only")

    def _exists(self) -> bool:
        return any(place.exists() for place in self._named)

    def _describe(self) -> dict[str, Any]:
        return {"named": [str(place) for place in self._named], "otherwise": str(self._otherwise)}


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
