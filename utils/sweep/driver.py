"""Hand the tasks of a sweep out to a cluster, the costliest first, until each is done or has failed for good."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

from datasets.names import printable
from utils.sweep.attempts import Content
from utils.sweep.plan import Estimate, Task, duration, makespan

REFRESH = 10.0  # seconds between looks at the cluster
MOST_ROWS = 20  # running tasks in the table
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt: with what complete.json says; with an error after which it would fail again; or lost, with
    its process or machine."""

    finished: Content | None = None
    error: str = ""
    lost: bool = False


class Cluster(Protocol):
    """Machines that tasks run on, such as RayCluster. Handles are whatever it knows them by."""

    def slots(self) -> int:
        """Count the tasks that can run at the same time now."""

    def submit(self, task: Task) -> Any: ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Return those that ended, as soon as one has, or none after so many seconds."""


@dataclass
class Entry:
    """The state of a task."""

    task: Task
    state: str = WAITING
    retried: int = 0  # times
    started: float = 0.0  # by time.monotonic
    error: str = ""


@dataclass
class Sweep:
    """The state of all tasks, and its display."""

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
        """Finish all tasks; returns the entries of those that failed."""
        waiting, running = deque(self.entries.values()), {}
        while waiting or running:
            slots = cluster.slots()
            while waiting and len(running) < slots:
                entry = waiting.popleft()
                running[cluster.submit(entry.task)] = entry
                entry.state, entry.started = RUNNING, time.monotonic()
                self.tell(entry, "running" + (f", retry {entry.retried}" if entry.retried else ""))
            self.draw(slots)
            for handle, outcome in cluster.wait(list(running), REFRESH):
                entry = running.pop(handle)
                self.end(entry, outcome)
                if entry.state == WAITING:
                    waiting.appendleft(entry)
        self.draw(0)
        return [entry for entry in self.entries.values() if entry.state == FAILED]

    def end(self, entry: Entry, outcome: Outcome) -> None:
        """Note the end of an attempt; a task that was lost waits again."""
        if outcome.finished:
            entry.state = DONE
            if "seconds" in outcome.finished:
                self.estimate.add(entry.task.method, outcome.finished["seconds"], entry.task.image_epochs)
            self.tell(entry, f"done in {duration(time.monotonic() - entry.started)}")
        elif outcome.lost and entry.retried < self.retries:
            entry.state, entry.retried = WAITING, entry.retried + 1
            self.tell(entry, f"lost ({outcome.error}); it will be retried")
        else:
            entry.state, entry.error = FAILED, outcome.error
            self.tell(entry, f"failed: {outcome.error}")

    def summary(self, slots: int) -> str:
        """Counts of states, and the time left."""
        states = Counter(entry.state for entry in self.entries.values())
        retried = sum(entry.retried > 0 for entry in self.entries.values())
        counts = ", ".join(f"{states[state]} {state}" for state in (WAITING, RUNNING, DONE, FAILED))
        left = self.seconds_left(slots)
        return f"{counts}, {retried} retried" + ("" if left is None else f"; about {duration(left)} left")

    def seconds_left(self, slots: int) -> float | None:
        """The makespan of running and waiting tasks; None if nothing is known of their times."""
        open_tasks = [e for state in (RUNNING, WAITING) for e in self.entries.values() if e.state == state]
        expected = [self.estimate.of(entry.task) for entry in open_tasks]
        if not expected or not slots or None in expected:
            return None
        past = [time.monotonic() - e.started if e.state == RUNNING else 0.0 for e in open_tasks]
        return makespan((max(whole - done, 0.0) for whole, done in zip(expected, past, strict=True)), slots)

    def tell(self, entry: Entry, news: str) -> None:
        """Print a line that stays."""
        self._erase()
        print(printable(f"{entry.task.key}: {news}"), file=self.out, flush=True)

    def draw(self, slots: int) -> None:
        """Draw the table in place of the one before; without a terminal, print the summary if it is another one."""
        summary = self.summary(slots)
        if not self.out.isatty():
            counts = summary.partition(";")[0]
            if counts != self.said:
                self.said = counts
                print(summary, file=self.out, flush=True)
            return
        running = [entry for entry in self.entries.values() if entry.state == RUNNING]
        now = time.monotonic()
        lines = [f"  {entry.task.key:<44} {duration(now - entry.started):>12}" for entry in running[:MOST_ROWS]]
        lines += [f"  and {len(running) - MOST_ROWS} more"] * (len(running) > MOST_ROWS)
        self._erase()
        print(*map(printable, lines), summary, sep="\n", file=self.out, flush=True)
        self.drawn = len(lines) + 1

    def _erase(self) -> None:
        if self.drawn:
            self.out.write(f"\x1b[{self.drawn}F\x1b[J")
            self.drawn = 0
