"""The most memory that this process has had, in bytes."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory() -> int:
    """Since it was started: getrusage would also count the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes
