"""The tasks of a sweep on Ray: a cluster that is there, or one of this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from utils.sweep.driver import Outcome
from utils.sweep.plan import Task
from utils.sweep.store import Content
from utils.sweep.work import Workplace
from utils.system.environment import ROOT
from utils.system.errors import StoreError, TaskLost, UsageError
from utils.system.missing import CLUSTER, require


class RayCluster:
    """Ray at `address` (None: on this machine alone), each task with so many cpus and gpus.

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
