"""What every dataset of ours rests on: files that are written whole or not at all, and a hash of what a file holds."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset, DatasetError
from kedro.io.core import get_filepath_str, get_protocol_and_path
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset, ParquetDataset
from kedro_datasets.text import TextDataset
from pandas import DataFrame
from safetensors import SafetensorError

WRITING_ERRORS = (OSError, RuntimeError, SafetensorError, DatasetError)  # of files, of torch, of safetensors, of Kedro around any
Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class OutputError(DatasetError):
    """The disk is full or a folder may not be written: no fault of the file at hand, and the next one will fare no better."""


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """What an error says. NumPy and torch count bytes or positions where they mean a short write."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = str(error) or type(error).__name__
    return f"{reason} (is the disk full?)" if isinstance(error, (OSError, RuntimeError)) else reason


def local_path(path: str | Path) -> Path:
    """The path of a file or folder that only this machine's file systems can hold.

    Raises:
        DatasetError: it begins with the protocol of another one, as s3:// or memory://.
    """
    protocol, inside = get_protocol_and_path(str(path))
    if protocol != "file":
        raise DatasetError(
            f"expected a path on this machine, got {path}; give a folder, if need be one where {protocol}:// is mounted. Only tables, "
            "JSON, text and figures may lie elsewhere"
        )
    return Path(inside)


@contextmanager
def atomic_path(target: str | Path, needed: int | None = None) -> Iterator[Path]:
    """A temporary path beside `target`, moved over it when the block ends well and removed when not.

    `needed`: bytes that will be written, for the message, where that is known.

    Raises:
        OutputError: the folder cannot be written or the disk is full. DatasetError: the writer gave up.
            Earlier content of `target` stays.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()  # a folder that may not be written says so here, in the system's words
        rights = temporary.stat().st_mode
        yield temporary
        temporary.chmod(rights)  # some writers, as safetensors, let nobody but the owner read
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except WRITING_ERRORS as error:
        cause = _first_cause(error)
        kind = DatasetError if isinstance(cause, DatasetError) else OutputError
        room = "" if needed is None else f", {needed / 1e6:.4g} MB were to be written beside the old file"
        raise kind(f"cannot write {target}: {_reason(cause)}{room}; what was there before is unchanged") from error
    finally:
        with suppress(OSError):  # of a folder that is not there; it must not hide the reason
            temporary.unlink()


class LocalDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """One file or folder on this machine, `self._filepath`, without versions."""

    def __init__(self, *, filepath: str, metadata: dict | None = None) -> None:
        self._filepath, self.metadata = local_path(filepath), metadata

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class OwnVersion:
    """Mixed in before a versioned dataset: a version that it has begun is written over, as a file is. Some results grow during a run."""

    _version: Any
    _own: PurePosixPath | None = None

    def _get_save_path(self) -> PurePosixPath:
        """See `AbstractVersionedDataset`."""
        if not (self._version and self._own and self._own == self._get_versioned_path(self.resolve_save_version())):  # type: ignore[attr-defined]
            self._own = super()._get_save_path()  # type: ignore[misc]
        return self._own


class AtomicSave(OwnVersion):
    """Mixed in before one of kedro-datasets' versioned datasets: on this machine it saves through `atomic_path`."""

    _filepath: Any
    _protocol: str
    _beside: PurePosixPath | None = None

    def _get_save_path(self) -> PurePosixPath:
        """While a file is being written, the one beside it."""
        return self._beside or super()._get_save_path()

    def save(self, data: Any) -> None:
        """Write beside the file, then over it.

        Raises:
            DatasetError: versions lie in a folder, and there is a file from before there were versions.
        """
        write = super().save.__wrapped__  # type: ignore[misc] # without Kedro's wrapper, which is around this method already
        if self._protocol != "file":  # such a store shows a file when all of it is there
            write(self, data)
            return
        if self._version and Path(self._filepath).is_file():
            raise DatasetError(f"{self._filepath} is a file, expected a folder of versions; move it away, and run again")
        target = self._get_save_path()
        with atomic_path(str(target)) as beside:
            self._beside = PurePosixPath(beside)
            try:
                write(self, data)
            finally:
                self._beside = None


class AtomicJSONDataset(AtomicSave, JSONDataset):
    """kedro-datasets' JSONDataset, written atomically. `metadata: {made_by: PIPELINE}` is told where the file is not there."""

    def load(self) -> Any:
        """Read the file.

        Raises:
            DatasetError: it is not there, or not JSON.
        """
        maker = (self.metadata or {}).get("made_by")
        advice = f"run `kedro run --pipelines {maker}` {{}}" if maker else "run the pipeline that writes it {}"
        try:
            return super().load()
        except DatasetError as error:  # Kedro's, around any
            cause = _first_cause(error)
            if isinstance(cause, FileNotFoundError):
                raise DatasetError(f"there is no {self._filepath}; {advice.format('first')}") from error
            raise DatasetError(f"{self._filepath}: not readable, expected JSON ({cause}); {advice.format('again')}") from error


class WithdrawableJSONDataset(AtomicJSONDataset):
    """The same; saving an empty mapping takes the file away, so that nobody goes on with what an earlier run wrote.

    Raises:
        DatasetError: it is to be versioned, so that what was withdrawn would leave the version before it.
    """

    def __init__(self, **definition: Any) -> None:
        if definition.get("version"):
            raise DatasetError(f"{definition.get('filepath')} cannot be versioned, because it is taken away when it no longer holds")
        super().__init__(**definition)

    def save(self, data: Any) -> None:
        """Write, or take away."""
        path = get_filepath_str(self._filepath, self._protocol)
        if data:
            super().save(data)
        elif self._fs.exists(path):
            self._fs.rm(path)


class AtomicCSVDataset(AtomicSave, CSVDataset):
    """kedro-datasets' CSVDataset, written atomically."""


class AtomicParquetDataset(AtomicSave, ParquetDataset):
    """kedro-datasets' ParquetDataset, written atomically."""


class TableDataset(AtomicCSVDataset):
    """A CSV that is read and written as above; with `parquet: true` what is written stands beside it as Parquet too, types kept.

    Raises:
        DatasetError: `parquet` is neither true nor false, or pyarrow is missing; said before anything runs.
    """

    def __init__(self, *, filepath: str, parquet: bool = False, **definition: Any) -> None:
        super().__init__(filepath=filepath, **definition)
        if not isinstance(parquet, bool):
            raise DatasetError(f"{filepath}: parquet must be true or false, got {parquet!r}")
        if parquet and find_spec("pyarrow") is None:
            raise DatasetError(
                f"{filepath}: parquet=true needs pyarrow, which is not installed; pip install 'lowlight-kedro[parquet]', or leave it out"
            )
        same = {key: definition[key] for key in ("version", "credentials", "fs_args") if key in definition}
        beside = f"{filepath.removesuffix('.csv')}.parquet"
        self._parquet = AtomicParquetDataset(filepath=beside, save_args={"index": False}, **same) if parquet else None

    def save(self, data: DataFrame) -> None:
        """Write the file, or both."""
        super().save(data)
        if self._parquet is not None:
            self._parquet.save(data)


class AtomicTextDataset(AtomicSave, TextDataset):
    """kedro-datasets' TextDataset, written atomically."""


class OptionalCSVDataset(CSVDataset):
    """kedro-datasets' CSVDataset; a file that is missing loads as None."""

    def load(self) -> DataFrame | None:
        """The table, if there is one."""
        return super().load() if self._exists() else None


BLOCK = 1 << 20  # bytes read at a time


@lru_cache(maxsize=1 << 16)
def _hash_of(path: Path, size: int, changed_ns: int) -> str:
    """Several pipelines of one run ask for it: read once while size and time stay."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """BLAKE2b of the file's bytes, 32 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _hash_of(path, state.st_size, state.st_mtime_ns)
