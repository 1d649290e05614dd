"""Map a function over many items: in this process, in local processes, or on an existing Dask cluster.

An executor is called with (function, items, shared) and yields (item, result) as results come. `shared` is what all
calls need; each worker receives it once. Where a call raised, or its worker died, the result is the exception.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar

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
