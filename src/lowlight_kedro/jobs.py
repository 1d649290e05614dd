"""Work on many files: who does it (in this process, in local processes, on a Dask cluster), what it is made of, and what was done before.

An executor is called with (function, items, shared) and yields (item, result) as results come. `shared` is what all
calls need; each worker receives it once. Where a call raised, or its worker died, the result is the exception.
"""

import hashlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal, Protocol, TypeVar

GRACE_S = 10
Item = TypeVar("Item")
Results = Iterator[tuple[Item, Any]]
Function = Callable[[Item, Any], Any]


class Executor(Protocol):
    """What every entry of `EXECUTORS` can do; its options are further keyword arguments."""

    def __call__(self, function: Function[Item], items: Sequence[Item], shared: Any) -> Results[Item]:
        """Yield (item, result or exception) for every item, in any order."""


class WorkerDiedError(RuntimeError):
    """The process that worked on an item ended without an answer: it crashed or was killed, perhaps for memory."""


def _outcome(function: Function[Item], item: Item, shared: Any) -> Any:
    try:
        return function(item, shared)
    except Exception as error:  # noqa: BLE001 - one bad item must not end the others; it is handed on
        return error


def sequential(function: Function[Item], items: Sequence[Item], shared: Any) -> Results[Item]:
    """One after the other, here."""
    for item in items:
        yield item, _outcome(function, item, shared)


_shared: Any = None


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)  # unlike KeyboardInterrupt, without a trace where the worker waits


def _start_worker(shared: Any, threads: int) -> None:
    signal.signal(signal.SIGINT, _leave)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    global _shared
    _shared = shared


def _in_worker(function: Function[Item], item: Item) -> Any:
    try:
        return _outcome(function, item, _shared)
    except SystemExit:  # Ctrl-C: files are closed and temporary ones removed; the pool would hand out the next item
        os._exit(128 + signal.SIGINT)


def _pool(workers: int, threads: int, shared: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(shared, threads))


def _stop(pool: ProcessPoolExecutor) -> None:
    """Nothing more is begun, and what is being done is left: a stopped run does not wait for its longest file."""
    workers = list((pool._processes or {}).values())  # noqa: SLF001 - there is no public way to reach them
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        if worker.pid and worker.is_alive():
            os.kill(worker.pid, signal.SIGINT)
    for worker in workers:
        worker.join(GRACE_S)  # until their temporary files are gone


def _alone(function: Function[Item], item: Item, shared: Any, threads: int) -> Any:
    with _pool(1, threads, shared) as pool:
        try:
            return pool.submit(_in_worker, function, item).result()
        except BrokenProcessPool:
            return WorkerDiedError("the worker process died on it (a crash, or killed for want of memory)")


def _until_broken(
    function: Function[Item], queue: deque[Item], open_calls: dict[Future, Item], pool: ProcessPoolExecutor, ahead: int
) -> Results[Item]:
    while queue or open_calls:
        while queue and len(open_calls) < ahead:
            open_calls[pool.submit(_in_worker, function, queue[0])] = queue[0]
            queue.popleft()
        for future in wait(open_calls, return_when=FIRST_COMPLETED).done:
            result = future.result()
            yield open_calls.pop(future), result


def processes(function: Function[Item], items: Sequence[Item], shared: Any, *, workers: int | None = None) -> Results[Item]:
    """In `workers` local processes (default: one per core), each with its share of the cores as threads.

    Few items are handed out ahead of time, so when a worker dies, few are suspect: each of them then runs in a process
    of its own, and the rest goes on in a new pool.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(workers or cores, max(len(items), 1))
    threads = max(cores // count, 1)
    queue = deque(items)
    open_calls: dict[Future, Item] = {}
    while queue:
        try:
            with _pool(count, threads, shared) as pool:
                try:
                    yield from _until_broken(function, queue, open_calls, pool, ahead=2 * count)
                except (KeyboardInterrupt, GeneratorExit):
                    _stop(pool)
                    raise
        except BrokenProcessPool:  # noqa: PERF203 - a new pool each time is the point
            for item in open_calls.values():
                yield item, _alone(function, item, shared, threads)
            open_calls = {}


def dask(function: Function[Item], items: Sequence[Item], shared: Any, *, address: str | None = None) -> Results[Item]:
    """On the Dask cluster whose scheduler is at `address`; its workers must see the same folders under the same names.

    Raises:
        ValueError: no address, or dask.distributed is not installed.
        OSError: no scheduler answers there.
    """
    if not address:
        raise ValueError("executor dask needs the scheduler's address, e.g. executor.options.dask.address=tcp://host:8786")
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ValueError("executor dask needs dask.distributed: pip install 'lowlight-kedro[dask]'") from error
    with Client(address) as client:
        everywhere = client.scatter(shared, broadcast=True, hash=False)
        calls = dict(zip(client.map(_outcome_of, [(function, item) for item in items], shared=everywhere, pure=False), items, strict=True))
        for future in as_completed(calls):
            yield calls[future], future.exception() or future.result()


def _outcome_of(call: tuple[Function[Item], Item], shared: Any) -> Any:
    return _outcome(*call, shared)


EXECUTORS: dict[str, Executor] = {"sequential": sequential, "processes": processes, "dask": dask}


RECORD = "record"
KEY, FILES, PARTS, DIGESTS = ADDED = ("key", "files", "parts", "digests")  # what a finished job adds to its record

# A number for each stage, to be raised when its results change: what was made under another number is made again.
# tests/pipelines/test_versions.py holds what each stage makes of a small input, and fails where that changes under the same number.
VERSIONS = {"tiles": 2, "pairs": 2, "photographs": 1, "calibration": 2, "darks": 2, "restoration": 11}


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
