"""A command as it is typed, in a process of its own that has this one's modules already: a fresh Python imports for five seconds."""

import logging
import os
import runpy
import signal
import sys
from io import FileIO, TextIOWrapper
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from tests.conftest import ROOT


def start(output: Path, module: str, *arguments: str, folder: Path = ROOT) -> BaseProcess:
    """`python -m MODULE ARGUMENTS` in a folder, on one thread, a session of its own; both of its outputs into one file."""
    kind = "spawn" if torch.cuda.is_available() else "fork"  # the autograd threads of a GPU do not live on in a fork
    process = get_context(kind).Process(target=_become, args=(output, module, arguments, folder))
    process.start()
    return process


def _become(output: Path, module: str, arguments: tuple[str, ...], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (TextIOWrapper(FileIO(number, "w", closefd=False), write_through=True) for number in (1, 2))
    log = logging.getLogger()
    log.handlers = [handler for handler in log.handlers if not type(handler).__module__.startswith("_pytest")]
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = sys.stderr
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
