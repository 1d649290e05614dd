"""One run over several processes: torch's elastic launch inside the training node, so that `kedro run` stays the one command."""

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from kedro.framework.project import LOGGING
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.pipelines.training.rank import STOP, Filed, Job, Work, leave_word, run_rank

logger = logging.getLogger(__name__)
NODE_NUMBERS = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")  # where clusters tell a node its number


class RankError(RuntimeError):
    """A rank ended the run; the message has its traceback."""


@dataclass(frozen=True)
class Crew:
    """Ranks of a run: `devices` on each of `nodes` machines, of which this is number `node`."""

    devices: int
    nodes: int = 1
    rendezvous: str | None = None
    node: int = 0

    @property
    def world(self) -> int:
        """How many ranks."""
        return self.devices * self.nodes


def count_devices(wanted: int | Literal["auto"], device: torch.device) -> int:
    """Ranks on this machine; `auto`: one for every GPU, one on the CPU.

    Raises:
        ValueError: there are not so many.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if wanted == "auto":
        return there if device.index is None else 1
    if wanted > 1 and (device.type not in ("cpu", "cuda") or device.index is not None):
        raise ValueError(f"training.devices={wanted} needs device: cpu, cuda or auto, got device: {device}; that names one device")
    if device.type == "cuda" and wanted > there:
        raise ValueError(f"training.devices={wanted} was asked for, but torch sees {there} GPUs; set it to {there} or auto")
    return wanted


def choose_crew(devices: int | Literal["auto"], nodes: int, rendezvous: str | None, device: torch.device) -> Crew:
    """From the parameters of the same names; the number of this node is read from the environment.

    Raises:
        ValueError: there are not so many devices, or a node cannot find the others.
    """
    crew = Crew(count_devices(devices, device), nodes, rendezvous)
    if nodes == 1:
        return crew
    number = next((os.environ[name] for name in NODE_NUMBERS if name in os.environ), None)
    if rendezvous is None or ":" not in rendezvous:
        raise ValueError(f"training.nodes={nodes} needs training.rendezvous=host:port, the same on every node, got {rendezvous}")
    if number is None or not 0 <= int(number) < nodes:
        raise ValueError(
            f"training.nodes={nodes} needs the number of this node, 0 to {nodes - 1}, in one of {', '.join(NODE_NUMBERS)}; got {number}"
        )
    return Crew(crew.devices, nodes, rendezvous, int(number))


def _config(crew: Crew, folder: Path) -> LaunchConfig:
    here: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    if crew.nodes > 1:
        here = {"rdzv_backend": "static", "rdzv_endpoint": crew.rendezvous, "rdzv_configs": {"rank": crew.node}}
    return LaunchConfig(
        min_nodes=crew.nodes, max_nodes=crew.nodes, nproc_per_node=crew.devices, run_id="lowlight_kedro", max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")), **here,
    )  # fmt: skip


class _Agent(threading.Thread):
    """torch's launcher in a thread, because the main one yields states to Kedro and hears signals."""

    def __init__(self, crew: Crew, job: Job) -> None:
        super().__init__(name="ranks", daemon=True)
        self._crew, self._job = crew, job
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            elastic_launch(_config(self._crew, self._job.folder), run_rank)(self._job)
        except BaseException as error:  # noqa: BLE001 - told in the main thread
            self.error = error


def _end(agent: _Agent, folder: Path) -> None:
    """Kill the ranks; those that are still being started register soon."""
    limit = time.monotonic() + 60
    while agent.is_alive() and time.monotonic() < limit:
        for word in folder.glob("pid-*"):
            with suppress(ProcessLookupError):
                os.kill(int(word.read_text()), signal.SIGKILL)
        agent.join(0.1)


@contextmanager
def _running(crew: Crew, job: Job) -> Iterator[_Agent]:
    """The ranks, as long as the block lasts: none survives it, however it ends.

    An error of the catalog keeps our generator in its traceback, unclosed; then the ranks end before Python, which
    would wait for them, does.
    """
    loud = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    levels, agent = [log.level for log in loud], _Agent(crew, job)
    for log in loud:
        log.setLevel(logging.CRITICAL)  # failures are ours to tell, once
    atexit.register(_end, agent, job.folder)
    agent.start()
    try:
        yield agent
    finally:
        _end(agent, job.folder)
        atexit.unregister(_end)
        for log, level in zip(loud, levels, strict=True):
            log.setLevel(level)


def _taken(folder: Path) -> Iterator[Checkpoint]:
    """States that rank 0 handed over; a file goes once its state was taken."""
    for path in sorted(folder.glob("state-*.safetensors")):
        yield Filed(str(path)).read()
        path.unlink()


def _tell(folder: Path, world: int, error: BaseException) -> str:
    """Which rank ended the run, and how: those that died without a word, then tracebacks, the earliest first."""
    failures = error.failures if isinstance(error, ChildFailedError) else {}
    lines = []
    for word in sorted(folder.glob("pid-*")):
        rank = int(word.name.removeprefix("pid-"))
        if not (folder / f"error-{rank}").exists() and not (folder / f"done-{rank}").exists():
            how = f": {failures[rank].message}" if rank in failures else ""
            lines.append(f"rank {rank} of {world} (pid {word.read_text()}) was killed, or crashed, without a traceback{how}")
    told = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
    lines += [f"rank {word.name.removeprefix('error-')} of {world}:\n{word.read_text()}" for word in told]
    return "the training ranks ended early\n" + "\n".join(lines or [f"before a rank began: {error}"])


def launched(
    work: Work, arguments: tuple[Any, ...], crew: Crew, *, device: torch.device, stopping: Callable[[], bool]
) -> Generator[Checkpoint, None, None]:
    """`work(*arguments, seat=...)` in every rank; yields what rank 0 yields, to be saved by the parent.

    `work` is a function of a module, `arguments` are picklable. Nodes other than the first yield nothing and end with
    SystemExit(0): what follows training happens once.

    Raises:
        RankError: a rank raised or was killed; the others were ended.
        KeyboardInterrupt: SIGTERM came to all processes while the ranks were starting.
    """
    with TemporaryDirectory(prefix="lowlight_kedro-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        threads = max(1, torch.get_num_threads() // crew.devices)
        job = Job(work, arguments, folder, device.type, threads, os.getpid(), LOGGING.data).filed()
        with _running(crew, job) as agent:
            while agent.is_alive():
                if stopping() and not (folder / STOP).exists():
                    leave_word(folder, STOP, "")
                yield from _taken(folder)
                agent.join(0.05)
            yield from _taken(folder)
            if agent.error is not None and stopping() and not any(folder.glob("error-*")):
                raise KeyboardInterrupt("stopped before the ranks had begun; what was saved before is unchanged") from agent.error
            if agent.error is not None:
                raise RankError(_tell(folder, crew.world, agent.error)) from agent.error
    if crew.node:
        logger.info("node %d has done its part; node 0 has the results", crew.node)
        raise SystemExit(0)
