"""Work that visitors ask for, in threads of its own: a few at a time, and each is answered in time.

    model = Desk(threads=1, seconds=600, stopping=stopping)
    results = await model.run(score, paths)             # and in `score`, now and then: model.check()

The server's own threads stay free, so that pages are served whatever is computed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from utils.system.errors import UsageError

MOST_WAITING = 64  # requests; each may hold 2 MB
CHECK_EVERY = 0.2  # seconds, for the end of the server


class Desk:
    """seconds: after which a request is answered that it took too long; stopping: set when all work is to end."""

    def __init__(self, threads: int, seconds: float, stopping: threading.Event):
        self.seconds, self.stopping = seconds, stopping
        self.pool, self.open = ThreadPoolExecutor(threads), 0
        self.job = threading.local()

    async def run(self, work: Callable, *values: object) -> Any:
        """Do the work in a thread and return its result. Raises its errors, and UsageError if too much waits, it takes
        too long or the server ends; then it ends at its next `check`."""
        if self.open >= MOST_WAITING:
            raise UsageError("Too many requests wait; try again later.")
        deadline, context = time.monotonic() + self.seconds, copy_context()
        future = asyncio.get_running_loop().run_in_executor(self.pool, context.run, self._do, deadline, work, *values)
        self.open += 1
        try:
            while not future.done():
                self._check(deadline)
                await asyncio.wait([future], timeout=min(CHECK_EVERY, self.seconds))
            return future.result()
        finally:
            self.open -= 1
            future.cancel()  # what waits never begins; what is done stays so

    def check(self) -> None:
        """Raise UsageError in a thread whose work is to end."""
        self._check(self.job.deadline)

    def _check(self, deadline: float) -> None:
        if self.stopping.is_set():
            raise UsageError("The server is being stopped.")
        if time.monotonic() > deadline:
            raise UsageError(f"This took longer than {self.seconds:g} seconds and was given up.")

    def _do(self, deadline: float, work: Callable, *values: object) -> Any:
        self.job.deadline = deadline
        return work(*values)
