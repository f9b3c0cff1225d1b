"""Work that visitors ask for, in threads of its own, and what waits for them: both are bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from utils.system.errors import UsageError

MOST_WAITING = 64  # requests; each may hold 2 MB
CHECK_EVERY = 0.2  # seconds, for the end of the server
MOST_MESSAGES = 250  # unread, in all; work that is done has about five, one with the pictures
MOST_PAGES = 2000  # with such messages


class Desk:
    """Threads that work; seconds: until a request has taken too long; stopping: set when all work is to end."""

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

        def begin() -> Any:
            self.job.deadline = deadline
            return work(*values)

        future = asyncio.get_running_loop().run_in_executor(self.pool, context.run, begin)
        self.open += 1
        try:
            while not future.done():
                self.check(deadline)
                await asyncio.wait([future], timeout=min(CHECK_EVERY, self.seconds))
            return future.result()
        finally:
            self.open -= 1
            future.cancel()  # what waits never begins; what is done stays so

    def check(self, deadline: float | None = None) -> None:
        """Raise UsageError if work is to end: by default that of this thread."""
        if self.stopping.is_set():
            raise UsageError("The server is being stopped.")
        if time.monotonic() > (self.job.deadline if deadline is None else deadline):
            raise UsageError(f"This took longer than {self.seconds:g} seconds and was given up.")


class Unread(OrderedDict):
    """Messages by page, for Gradio's `_queue.pending_messages_per_session`, which keeps all that no page listens to.

    Those of the page that has left most of them unread go first, of several the oldest.
    """

    def __getitem__(self, page: str) -> asyncio.Queue:
        """The messages of a page, before one is added or taken."""
        if sum(messages.qsize() for messages in self.values()) > MOST_MESSAGES:
            longest = max(self.values(), key=asyncio.Queue.qsize)
            while not longest.empty():
                longest.get_nowait()
        return super().__getitem__(page)

    def __setitem__(self, page: str, messages: asyncio.Queue) -> None:
        if page not in self and len(self) >= MOST_PAGES:
            self.popitem(last=False)
        super().__setitem__(page, messages)
