"""Files written completely or not at all, and functions run in threads."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from utils.system.errors import WriteError

SYSTEM_FOLDERS = (Path("/dev"), Path("/dev/fd"))
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\.aand-[0-9a-f]{12}\.tmp(\.[^.]+)?")  # the names that atomic_write gives
EARLIER_TEMPORARY = re.compile(  # and once gave
    r"\.(config|metrics|results|results_native|report|teacher|stage[12]|stage[12]\.progress|view|thresholds|unused|sweep"
    r"|about|snapshot|complete|output|[0-9a-f]{64})\.[0-9a-f]{12}(\.[a-z]+)?"
)


@contextmanager
def naming(path: str | Path, note: str = "") -> Iterator[None]:
    """Make errors of the system while a file is written, which do not say of what, WriteErrors that name it."""
    try:
        yield
    except (WriteError, FileNotFoundError):
        raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}{note}") from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    Yields a path in the same folder (made if missing) with the same suffix. When the block ends, the file written
    there is flushed to disk and replaces `path`; when it raises, the file is deleted and `path` stays as it was. A
    device or pipe has nothing that could be replaced: it is yielded itself.

    Raises WriteError where it cannot be written (no room, no permission), FileNotFoundError if the block wrote nothing.
    """
    path = Path(path)
    if is_device(path):
        with naming(path):
            yield path
        return
    temporary = path.with_name(f".aand-{uuid.uuid4().hex[:12]}.tmp{path.suffix[:20]}")
    try:
        with naming(path, "; what was there before is as it was"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def is_device(path: Path) -> bool:
    """Tell whether a path is neither file nor folder, e.g. a pipe, or a name that the system keeps for one."""
    return path.absolute().parent in SYSTEM_FOLDERS or (path.exists() and not path.is_file() and not path.is_dir())


def reserve(file: IO[bytes]) -> None:
    """Take room for all of a sparse file, where the system can: a full disk is then an OSError, and does not, on
    writing to the file's mapping, end the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = os.fstat(file.fileno()).st_size
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OSError(error.errno, f"no room for {size / 1e9:.2f} GB: {error.strerror}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def in_parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
    """The function's results in the items' order, from `workers` threads (Pillow and OpenCV leave the lock)."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def read_ahead(function: Callable, items: Iterable, workers: int, most: int) -> Iterator:
    """Results as of `in_parallel`, for more items than fit into memory: at most `most` wait to be taken."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()
