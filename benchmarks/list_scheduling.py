"""List scheduling: jobs of known length on equal slots, each as soon as there is room, the longest first.

    list_schedule([Job(7), Job(5), Job(4, width=2)], slots=2).makespan      # seconds

With jobs of one slot each it is what a sweep does, and expects: `makespan` of utils/sweep/plan.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    seconds: float
    width: int = 1  # slots that it takes at the same time


@dataclass(frozen=True)
class Schedule:
    """The start of each job, in the order of the jobs."""

    jobs: Sequence[Job]
    starts: Sequence[float]
    slots: int

    @property
    def makespan(self) -> float:
        """Seconds until the last job ends."""
        ends = (start + job.seconds for job, start in zip(self.jobs, self.starts, strict=True))
        return max(ends, default=0.0)


def list_schedule(jobs: Sequence[Job], slots: int) -> Schedule:
    """Start the jobs in their order, each as soon as it has its slots; none overtakes one before it.

    Raises ValueError for a job that is wider than all slots.
    """
    free = [0.0] * slots  # when each slot is free, as a heap
    starts, earliest = [], 0.0
    for job in jobs:
        if not 1 <= job.width <= slots:
            raise ValueError(f"a job of {job.width} slots does not fit on {slots}")
        taken = [heapq.heappop(free) for _ in range(job.width)]  # the last of them is free last
        earliest = max(earliest, taken[-1])
        starts.append(earliest)
        for _ in taken:
            heapq.heappush(free, earliest + job.seconds)
    return Schedule(jobs, starts, slots)


def lower_bound(jobs: Sequence[Job], slots: int) -> float:
    """Seconds that no schedule is below: the longest job, and all work spread evenly."""
    longest = max((job.seconds for job in jobs), default=0.0)
    return max(longest, sum(job.seconds * job.width for job in jobs) / slots)
