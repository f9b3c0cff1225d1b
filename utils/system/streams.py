"""Standard output and error that cost no results: closed ones, a full disk behind them, a reader that has gone.

What is said on stderr is dropped where it cannot be written. On stdout that is a WriteError, or ReaderGone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from utils.system.errors import WriteError

READER_GONE = 141  # the shell's exit status for SIGPIPE


class ReaderGone(OSError):
    """Whoever read the standard output has ended, e.g. `head`."""


class _Guarded:
    """A text stream whose errors are dropped or, where they matter, named."""

    def __init__(self, stream: TextIO, matters: bool):
        self.stream, self.matters = stream, matters

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, function: Callable, *arguments: str) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self.matters:
                raise ReaderGone from error
            if self.matters:
                raise WriteError(f"cannot write the standard output: {error.strerror}") from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Guard stdout and stderr; those that were closed lead nowhere, so that no file of data takes their number."""
    _open_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal
    sys.stdout, sys.stderr = _Guarded(sys.stdout, matters=True), _Guarded(sys.stderr, matters=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            try:
                stream.flush()
            except OSError:  # the interpreter would try again, and complain, when it ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _open_closed() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)  # which the programs that this one starts have, too
            if opened != number:
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing that is printed is seen."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
