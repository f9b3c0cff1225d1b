"""Handing out tasks: who is tried again, and what is told of it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from tests.support.sweeps import task
from utils.sweep import driver as driver_module
from utils.sweep.driver import DONE, FAILED, Outcome, Sweep
from utils.sweep.plan import Estimate, Task


class Scripted:
    """A cluster of so many slots where each attempt ends as the list of its task says, in the order of submission."""

    def __init__(self, slots: int, outcomes: dict[str, list[Outcome]]):
        self.free, self.outcomes, self.submitted, self.most = slots, outcomes, [], 0

    def slots(self) -> int:
        return self.free

    def submit(self, task: Task) -> int:
        self.submitted.append(task.category)
        return len(self.submitted) - 1

    def wait(self, handles, seconds):
        self.most = max(self.most, len(handles))
        first = min(handles)
        return [(first, self.outcomes[self.submitted[first]].pop(0))]


DONE_WITH = Outcome(finished={"seconds": 5.0})
LOST, WRONG = Outcome(error="NodeDiedError", lost=True), Outcome(error="data/aand/seed0/b: train.py: bad (see x)")


def test_lost_tasks_are_tried_again_and_failed_ones_are_not():
    tasks = [task(name) for name in "abcd"]
    cluster = Scripted(2, {"a": [LOST, LOST, DONE_WITH], "b": [WRONG], "c": [LOST] * 4, "d": [DONE_WITH]})
    sweep = Sweep(tasks, Estimate(), out=io.StringIO(), retries=3)
    failed = sweep.run(cluster)
    assert sorted(entry.task.category for entry in failed) == ["b", "c"]
    assert {e.task.category: (e.state, e.retried) for e in sweep.entries.values()} == {
        "a": (DONE, 2), "b": (FAILED, 0), "c": (FAILED, 3), "d": (DONE, 0)
    }
    assert sorted(cluster.submitted) == sorted("aaabccccd")
    assert cluster.submitted[:2] == ["a", "b"]  # in their order
    assert cluster.most == 2
    said = sweep.out.getvalue()
    assert "data/aand/seed0/a: lost (NodeDiedError); it will be retried" in said
    assert "data/aand/seed0/b: failed: data/aand/seed0/b: train.py: bad (see x)" in said
    assert said.splitlines()[-1] == "0 waiting, 0 running, 2 done, 2 failed, 2 retried"


def test_the_time_left_is_that_of_a_schedule(monkeypatch):
    """Running for 4 of 10 s, and 10, 10, 5 s to come, on two slots: 6 | 10 and 10 | 5, which is 16."""
    monkeypatch.setattr(driver_module.time, "monotonic", lambda: 104.0)
    tasks = [task("a"), task("b"), task("c"), task("d", 5)]
    sweep = Sweep(tasks, Estimate(given=1.0), out=io.StringIO())
    sweep.entries[tasks[0]].state, sweep.entries[tasks[0]].started = driver_module.RUNNING, 100.0
    assert sweep.seconds_left(2) == 16
    assert sweep.seconds_left(0) is None
    assert sweep.summary(2) == "3 waiting, 1 running, 0 done, 0 failed, 0 retried; about 16 s left"
    assert replace(sweep, estimate=Estimate()).seconds_left(2) is None


def test_a_terminal_gets_a_table_that_is_drawn_anew():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    tasks, out = [task(name) for name in "ab"], Terminal()
    Sweep(tasks, Estimate(), out=out).run(Scripted(2, {"a": [DONE_WITH], "b": [DONE_WITH]}))
    assert re.search(r"  data/aand/seed0/a +0 s\n  data/aand/seed0/b +0 s\n0 waiting, 2 running", out.getvalue())
    assert "\x1b[3F\x1b[J" in out.getvalue()  # three lines up
