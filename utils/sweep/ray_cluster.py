"""The tasks of a sweep on Ray: a cluster that is there, or one of this machine for as long as it is needed.

Every machine must have this code, the packages and the data under the same paths; run folders go through the store, so
no disk need be shared.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any

from utils.sweep.driver import Outcome
from utils.sweep.plan import Task
from utils.sweep.work import Workplace
from utils.system.environment import ROOT
from utils.system.errors import StoreError, Superseded, TaskFailed, TaskLost, UsageError
from utils.system.missing import CLUSTER
from utils.system.packages import require


class RayCluster:
    """Ray at `address` (None: on this machine alone), each task with so many cpus and gpus; as a context.

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
            raise UsageError(f"--address {address}: {' '.join(str(error).split())[:300]}") from error
        self.arguments = (str(ROOT), store_url, asdict(place))
        # Ray's own retries are off: the driver counts and shows them
        self.call = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_by_value(remote_work))
        if not self.slots():
            self.ray.shutdown()
            raise UsageError(f"no machine of the cluster has --cpus {cpus} and --gpus {gpus:g}")

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ray.shutdown()  # ends what still runs

    def slots(self) -> int:
        """How many tasks fit on the machines that are there now."""
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(min(self._fit(node, "CPU", self.cpus), self._fit(node, "GPU", self.gpus)) for node in alive)

    def _fit(self, resources: dict[str, float], name: str, needed: float) -> int:
        return int(resources.get(name, 0.0) / needed + 1e-6) if needed else 1_000_000

    def submit(self, task: Task) -> Any:
        return self.call.remote(*self.arguments, asdict(task))

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        if not handles:
            time.sleep(seconds)
            return []
        ready, _ = self.ray.wait(list(handles), timeout=seconds)
        return [(handle, self._outcome(handle)) for handle in ready]

    def _outcome(self, handle: Any) -> Outcome:
        try:
            return Outcome(finished=self.ray.get(handle))
        except (TaskFailed, Superseded) as error:
            return Outcome(error=_in_words(error))
        except (TaskLost, StoreError) as error:
            return Outcome(error=_in_words(error), lost=True)
        except self.ray.exceptions.RayTaskError as error:  # a defect: it would come again
            return Outcome(error=_in_words(error))
        except self.ray.exceptions.RayError as error:  # the worker, its machine, or its memory
            return Outcome(error=type(error).__name__, lost=True)


def remote_work(root: str, store_url: str, place: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """What a worker of Ray does, which knows nothing of this code before it is told where it is."""
    import sys

    if root not in sys.path:
        sys.path.insert(0, root)
    from utils.sweep.plan import Task
    from utils.sweep.store import Store
    from utils.sweep.work import Workplace, work

    return work(Task(**task), Store(store_url), Workplace(**place))


def _by_value(function: Any) -> Any:
    """The function as one that Ray sends whole, not by the name of a module that a worker cannot import."""
    function.__module__ = "__main__"
    return function


def _in_words(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split())[:500]
