"""Threads that compute: how many there are, and how they wait for each other. OpenMP reads both when torch is imported.

Waiting threads of GNU's OpenMP spin for a long time by default, which is of no use and takes the core from whatever
else runs: with a busy loop on each core of a machine an epoch takes seven times as long (docs/scaling.md).
"""

from __future__ import annotations

import os
import sys

COUNT, SPINS = "OMP_NUM_THREADS", "GOMP_SPINCOUNT"
FEW_SPINS = "10000"  # some microseconds: longer than most waits where the cores are free


def spin_briefly() -> None:
    """Let waiting threads sleep soon, unless the environment says how they are to wait."""
    if SPINS not in os.environ and "OMP_WAIT_POLICY" not in os.environ:
        os.environ[SPINS] = FEW_SPINS


def use_threads(count: int) -> None:
    """Compute with so many threads, in this process and in those that it starts."""
    os.environ[COUNT] = str(count)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def threads_to_use() -> int:
    """The number of threads that was asked for, 0 if none was."""
    wanted = os.environ.get(COUNT, "")
    return int(wanted) if wanted.isdecimal() else 0
