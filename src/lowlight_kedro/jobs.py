"""One piece of work per file: what it is computed from, and whether that was done before."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from lowlight_kedro.executors import Executor, sequential

RECORD = "record"
KEY, FILES, PARTS, DIGESTS = ADDED = ("key", "files", "parts", "digests")  # what a finished job adds to its record


# A number for each stage, to be raised when its results change: what was made under another number is made again.
# tests/pipelines/test_versions.py holds what each stage makes of a small input, and fails where that changes under the same number.
VERSIONS = {"tiles": 2, "pairs": 2, "photographs": 1, "calibration": 2, "darks": 2, "restoration": 5}


def no_bars() -> bool:
    """Whether bars of progress would only litter: stderr is no terminal, or one that cannot move its cursor."""
    return not sys.stderr.isatty() or os.environ.get("TERM") == "dumb"


class Source(Protocol):
    """An input file."""

    @property
    def path(self) -> Any:
        """Where it lies."""

    def content_hash(self) -> str:
        """Of all its bytes."""


@dataclass(frozen=True)
class Job:
    """The work on one file.

    Attributes:
        name: of the result.
        stage: one of `VERSIONS`.
        compute: shared -> {part: content}; `record` is one of the parts, a dictionary. Must be picklable.
        sources: the files it reads.
        settings: everything else that the result depends on, as JSON would write it.
        parts: what is asked of it; an earlier run that made the same by the same settings is enough. Empty: what it gives.
        size: bytes that its files will take at most; 0 = not known.
    """

    name: str
    stage: str
    compute: Callable[[Any], Mapping[str, Any]]
    sources: Sequence[Source]
    settings: Any
    parts: Sequence[str] = ()
    size: int = 0

    def key(self) -> str:
        """The same for the same content of the files, settings and version of the stage.

        Raises:
            OSError: a source cannot be read.
        """
        made_of = [self.stage, VERSIONS[self.stage], self.settings, [source.content_hash() for source in self.sources]]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Jobs:
    """Jobs, what all of them need (`shared`, sent to each worker once), who does them, and what a progress bar calls it."""

    jobs: Sequence[Job]
    shared: Any = None
    executor: Executor | partial = sequential
    title: str = "jobs"
    unit: str = "file"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: done now, kept from an earlier run, or failed.

    Attributes:
        name: of the job.
        state: how.
        error: why it failed.
        seconds: that were waited for it.
        trace: where in the code `error` arose.
        damaged: a file of an earlier run that was not as it had been written, so that the job was done again.
    """

    name: str
    state: Literal["done", "kept", "failed"]
    error: str | None = None
    seconds: float = 0.0
    trace: str = ""
    damaged: str = ""
