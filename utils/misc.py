"""Small helpers that belong to no other file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file completely or not at all.

        with atomic_write(path) as temporary:
            torch.save(checkpoint, temporary)

    Yields a path in the same folder (made if missing) with the same suffix. When the block ends, the file written
    there is flushed to disk and replaces `path`; when it raises, the file is deleted and `path` stays as it was.

    Raises FileNotFoundError if the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def in_parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
    """The function's results in the items' order, from `workers` threads (Pillow and OpenCV leave the lock)."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
