"""Memory that a process took at most."""

from __future__ import annotations

import sys
from pathlib import Path


def process_peak(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process took at most, from Linux's status file where it tells."""
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux not below what the parent had taken
