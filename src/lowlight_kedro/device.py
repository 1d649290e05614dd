"""Where to compute, how exactly, and with which memory."""

import ctypes
import re
import sys
from pathlib import Path
from typing import Literal

import torch

PROCESSOR = Path("/proc/cpuinfo")  # of Linux
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as x86 and ARM name it there
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT, WHOLE = 2**31 - 1, 2**27  # bytes: free memory kept at most; blocks from this size on come from the system, one by one
Precision = Literal["fp32", "bf16"]


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU where there is one.

    Raises:
        ValueError: `cuda` (or `mps`) was asked for and is not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(wanted.split(":")[0], False):
        there = ", ".join(name for name, has in available.items() if has)
        raise ValueError(f"device {wanted!r} was asked for, but torch sees only: {there}; set device to auto or cpu")
    return torch.device(wanted)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for bf16, which make it about twice as fast; emulated it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0) if torch.version.cuda else torch.cuda.is_bf16_supported()
    if device.type != "cpu" or not PROCESSOR.exists():
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", PROCESSOR.read_text(), re.MULTILINE)
    return bool(flags and BF16 & set(flags[1].split()))


def choose_precision(wanted: Precision | Literal["auto"], device: torch.device) -> Precision:
    """`auto` takes bf16 where the device computes in it."""
    if wanted != "auto":
        return wanted
    return "bf16" if computes_in_bf16(device) else "fp32"


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for the next tensor; whether the C library can (glibc does).

    Else every tensor of more than 32 MiB is fresh memory, which the system clears page by page: a fifth of the time of an evaluation
    on a CPU (docs/frames.md). The peak of a whole frame grows by some 100 MiB; up to `KEPT` bytes stay with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in ((MMAP_THRESHOLD, WHOLE), (TRIM_THRESHOLD, KEPT)))
