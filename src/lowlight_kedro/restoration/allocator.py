"""What the C library does with memory that tensors free."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT, WHOLE = 2**31 - 1, 2**27  # bytes: free memory kept at most; blocks from this size on come from the system, one by one


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for the next tensor; whether the C library can (glibc does).

    Else every tensor of more than 32 MiB is fresh memory, which the system clears page by page: a fifth of the time of an evaluation
    on a CPU (docs/frames.md). The peak of a whole frame grows by some 100 MiB; up to `KEPT` bytes stay with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in ((MMAP_THRESHOLD, WHOLE), (TRIM_THRESHOLD, KEPT)))
