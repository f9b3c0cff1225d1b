"""Let SIGINT (Ctrl-C) and SIGTERM stop a program cleanly: at once or, in training, after the step that is under way."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop; `exit_status` is the shell's for it: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int):
        super().__init__()
        self.number, self.exit_status = number, 128 + number


def exit_on_signals() -> None:
    """Let these signals raise Interrupted, in the main thread: no other gets any."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, stop)


def ignore_signals() -> None:
    """Let these signals do nothing: the program is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], None]]:
    """Let the first signal make the yielded function raise Interrupted, or the end; a second one raises it at once."""
    asked: list[int] = []

    def check() -> None:
        if asked:
            raise Interrupted(asked.pop())

    def ask(number: int, frame: object) -> None:
        if asked:
            raise Interrupted(number)
        asked.append(number)
        print("stopping after this step; once more to stop now", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    check()
