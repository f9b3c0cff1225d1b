"""Hand the tasks of a sweep out to a cluster, the costliest first, until each is done or has failed for good.

What a cluster is, is left open (`Cluster`): utils/sweep/ray_cluster.py has Ray's.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from datasets.names import printable
from utils.sweep.attempts import Content
from utils.sweep.plan import Estimate, Task
from utils.sweep.schedule import Job, duration, list_schedule

REFRESH = 10.0  # seconds between looks at the cluster
SHOWN = 20  # running tasks in the table at most
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: with what complete.json says; with an error after which it would fail again; or lost, with
    its process or machine."""

    finished: Content | None = None
    error: str = ""
    lost: bool = False


class Cluster(Protocol):
    """Where tasks run. Handles are whatever it knows them by."""

    def slots(self) -> int:
        """How many tasks can run at the same time now."""

    def submit(self, task: Task) -> Any: ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Those that ended, as soon as one has, or none after so many seconds."""


@dataclass
class Entry:
    """What is known of a task."""

    task: Task
    state: str = WAITING
    retried: int = 0  # times
    started: float = 0.0  # seconds of `Sweep.clock`
    error: str = ""


@dataclass
class Sweep:
    """The state of all tasks, and what is told about it."""

    tasks: Sequence[Task]
    estimate: Estimate
    out: TextIO = sys.stderr
    retries: int = 3
    entries: dict[Task, Entry] = field(init=False)
    drawn: int = 0  # lines of the table on the screen
    said: str = ""  # the counts, where there is no table

    def __post_init__(self) -> None:
        self.entries = {task: Entry(task) for task in self.tasks}

    def run(self, cluster: Cluster) -> list[Entry]:
        """Returns the entries of the tasks that failed."""
        waiting, running = deque(self.tasks), {}
        while waiting or running:
            slots = cluster.slots()
            while waiting and len(running) < slots:
                task = waiting.popleft()
                running[cluster.submit(task)] = task
                self.begin(task)
            self.draw(slots)
            for handle, outcome in cluster.wait(list(running), REFRESH):
                task = running.pop(handle)
                if self.end(task, outcome):
                    waiting.appendleft(task)
        self.draw(0)
        return [entry for entry in self.entries.values() if entry.state == FAILED]

    def begin(self, task: Task) -> None:
        entry = self.entries[task]
        entry.state, entry.started = RUNNING, time.monotonic()
        self.tell(task, "running" + (f", retry {entry.retried}" if entry.retried else ""))

    def end(self, task: Task, outcome: Outcome) -> bool:
        """Note how an attempt ended; whether there is to be another one."""
        entry = self.entries[task]
        if outcome.finished:
            entry.state = DONE
            if "seconds" in outcome.finished:
                self.estimate.add(task.method, outcome.finished["seconds"], task.image_epochs)
            self.tell(task, f"done in {duration(time.monotonic() - entry.started)}")
        elif outcome.lost and entry.retried < self.retries:
            entry.state, entry.retried = WAITING, entry.retried + 1
            self.tell(task, f"lost ({outcome.error}); it will be retried")
            return True
        else:
            entry.state, entry.error = FAILED, outcome.error
            self.tell(task, f"failed: {outcome.error}")
        return False

    def summary(self, slots: int) -> str:
        """Counts of states, and the time left."""
        states = Counter(entry.state for entry in self.entries.values())
        retried = sum(entry.retried > 0 for entry in self.entries.values())
        counts = ", ".join(f"{states[state]} {state}" for state in (WAITING, RUNNING, DONE, FAILED))
        left = self.seconds_left(slots)
        return f"{counts}, {retried} retried" + ("" if left is None else f"; about {duration(left)} left")

    def seconds_left(self, slots: int) -> float | None:
        """By list scheduling of what running and waiting tasks are expected to take yet; None if that is not known."""
        open_tasks = [entry for entry in self.entries.values() if entry.state in (RUNNING, WAITING)]
        expected = {entry.task: self.estimate.of(entry.task) for entry in open_tasks}
        if not open_tasks or not slots or None in expected.values():
            return None
        now, jobs = time.monotonic(), []
        for entry in sorted(open_tasks, key=lambda entry: entry.state):  # running before waiting
            past = now - entry.started if entry.state == RUNNING else 0.0
            jobs.append(Job(max(expected[entry.task] - past, 0.0)))
        return list_schedule(jobs, slots).makespan

    def tell(self, task: Task, what: str) -> None:
        """A line that stays."""
        self._erase()
        print(printable(f"{task.key}: {what}"), file=self.out, flush=True)

    def draw(self, slots: int) -> None:
        """The table, in place of the one before; not a terminal: the summary alone, where it is another one."""
        summary = self.summary(slots)
        if not self.out.isatty():
            counts = summary.partition(";")[0]
            if counts != self.said:
                self.said = counts
                print(summary, file=self.out, flush=True)
            return
        running = [entry for entry in self.entries.values() if entry.state == RUNNING]
        now = time.monotonic()
        lines = [f"  {entry.task.key:<44} {duration(now - entry.started):>12}" for entry in running[:SHOWN]]
        lines += [f"  and {len(running) - SHOWN} more"] * (len(running) > SHOWN)
        self._erase()
        print(*map(printable, lines), summary, sep="\n", file=self.out, flush=True)
        self.drawn = len(lines) + 1

    def _erase(self) -> None:
        if self.drawn:
            self.out.write(f"\x1b[{self.drawn}F\x1b[J")
            self.drawn = 0
