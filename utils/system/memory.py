"""Memory: what this process can take, and what it keeps of what was freed."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # programs that run exported models have no torch
    import torch

LARGEST_SHARE = 0.5  # of the memory or disk space free that images, or features, may take
CGROUP = Path("/sys/fs/cgroup")  # version 2: the limit of a container
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def available_memory(device: torch.device | None = None) -> int:
    """Bytes that can be taken now: of a CUDA device's memory, or this process's part of the machine's, control groups
    considered."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    except (OSError, ValueError):  # no limit is written as "max"
        pass
    return free // processes_here()


def processes_here() -> int:
    """The number of processes that share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


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
