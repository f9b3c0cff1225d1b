"""Hand the tasks of a sweep out to Ray, the costliest first, until each is done or has failed for good."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from datasets.names import printable
from utils.sweep.plan import Estimate, Task, duration, makespan
from utils.sweep.store import Content
from utils.sweep.work import Workplace
from utils.system.environment import ROOT
from utils.system.errors import StoreError, TaskLost, UsageError
from utils.system.packages import CLUSTER, require

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


class RayCluster:
    """Ray at `address` (None: on this machine alone, while it is needed), each task with so many cpus and gpus.

    Raises MissingPackage without Ray, UsageError where there is none, or no machine of it is large enough.
    """

    def __init__(self, address: str | None, cpus: int, gpus: float, store_url: str, place: Workplace):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import: nothing is sent to anyone
        self.ray = require("ray", "scripts/sweep.py", CLUSTER)
        self.cpus, self.gpus = cpus, gpus
        own = {} if address else {"include_dashboard": False}
        try:
            self.ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"`address` {address}: {' '.join(str(error).split())[:300]}") from error
        remote = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)  # the driver retries, and says so
        self.call = remote(worker(str(ROOT), store_url, asdict(place)))
        if not self.slots():
            self.close()
            raise UsageError(f"no machine of the cluster has `cpus` {cpus} and `gpus` {gpus:g}")

    def close(self) -> None:
        """Leave the cluster, which ends what still runs."""
        self.ray.shutdown()

    def slots(self) -> int:
        """Count the tasks that fit on the machines that are there now."""
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = {name: need for name, need in (("CPU", self.cpus), ("GPU", self.gpus)) if need}
        return sum(min(int(node.get(name, 0.0) / need + 1e-6) for name, need in needs.items()) for node in alive)

    def submit(self, task: Task) -> Any:
        return self.call.remote(asdict(task))

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        """Return those that ended, as soon as one has, or none after so many seconds."""
        if not handles:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(handles), timeout=seconds)
        return [(handle, self._outcome(handle)) for handle in ready]

    def _outcome(self, handle: Any) -> Outcome:
        try:
            return Outcome(finished=self.ray.get(handle))
        except self.ray.exceptions.RayTaskError as error:  # of the task: unless it was lost, it would fail again
            cause = getattr(error, "cause", None) or error
            return Outcome(error=" ".join(str(cause).split())[:500], lost=isinstance(cause, TaskLost | StoreError))
        except self.ray.exceptions.RayError as error:  # the worker, its machine, or its memory
            return Outcome(error=type(error).__name__, lost=True)


def worker(root: str, store_url: str, place: dict[str, Any]) -> Callable[[dict[str, Any]], Content]:
    """Make the function of Ray's workers, which know nothing of this code: as a local one it is sent to them whole."""

    def work_on(task: dict[str, Any]) -> dict[str, Any]:
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        from utils.sweep.plan import Task
        from utils.sweep.store import Store
        from utils.sweep.work import Workplace, work

        return work(Task(**task), Store(store_url), Workplace(**place))

    return work_on


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

    def run(self, cluster: RayCluster) -> list[Entry]:
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
