"""Memory of this process: what it keeps of what was freed, and what it took at most."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: tensors of every step are as large as those of the last, and memory that comes anew
    from the system must be cleared page by page first. Elsewhere nothing is done."""
    if libc := glibc():
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)


def release_freed_memory() -> None:
    """Give kept memory back to the system once, where what is to come does not fit into the holes."""
    if libc := glibc():
        libc.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The process's C library if it is GNU's."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def process_peak(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process took at most, from Linux's status file where it tells."""
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux not below what the parent had taken
