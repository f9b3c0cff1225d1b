"""One attempt at a task: train.py and test.py in processes of their own, whose run folder is brought to the store again
and again. It may be killed at any moment: the next attempt resumes from what is in the store."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datasets.names import printable
from datasets.plain_json import read_json
from utils.runs.folder import RESULTS
from utils.sweep.attempts import OUTPUT, Attempt, completed, pull
from utils.sweep.plan import Task
from utils.sweep.store import Content, Store
from utils.system.environment import ROOT, code_version
from utils.system.errors import StoreError, TaskFailed, TaskLost
from utils.system.signals import Interrupted

PATIENCE = 60  # seconds that a program gets to save and end
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


@dataclass(frozen=True)
class Workplace:
    """Settings of a machine that tasks run on."""

    threads: int = 1  # of computing, on which bits depend
    push_every: float = 120.0  # seconds
    folder: Path = Path(tempfile.gettempdir())  # on its own disk
    here: Path = field(default_factory=Path.cwd)  # where relative paths start from
    code: Mapping[str, Any] = field(default_factory=code_version)  # of whoever hands out the tasks


def work(task: Task, store: Store, place: Workplace) -> Content:
    """Finish a task, from where an earlier attempt left it; returns complete.json.

    Raises TaskFailed, TaskLost, StoreError, and Superseded where another attempt is ahead.
    """
    if finished := completed(store, task.key):
        return finished
    if code_version() != place.code:
        raise TaskFailed(f"{task.key}: this machine has code {code_version()}, the sweep was started with {place.code}")
    attempt = Attempt.begin(store, task.key)
    with own_folder(place.folder, f"{store.url} {task.key}", attempt.name) as folder:
        run, started = folder / "run", time.perf_counter()
        pull(store, task.key, run)
        try:
            for command in task.commands(run):
                status = run_program(command, folder, place, lambda: push(attempt, folder))
                check_status(status, command[0], task, folder, attempt)
        except (Interrupted, TaskFailed, TaskLost):
            push(attempt, folder)
            raise
        store.put(folder / OUTPUT, attempt.path(OUTPUT))
        computing = sum(read_json(run / RESULTS)["seconds"][task.category].values())  # in all attempts
        seconds = max(computing, time.perf_counter() - started)  # of one attempt: with starting and reading
        facts = {"key": task.key, "seconds": seconds, "image_epochs": task.image_epochs}
        return attempt.finish(run, folder / "staging", facts)


def run_program(command: list[str], folder: Path, place: Workplace, push: Callable[[], None]) -> int:
    """Run a program of the repository to its end, pushing now and then; its exit status, negative if it was killed.

    What it prints goes to output.txt. It ends when this process does, and is asked to where this function raises.
    """
    threads = str(place.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    program, *flags = command
    with (folder / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / program), *flags], cwd=place.here, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(place.push_every)
            push()
    finally:
        if process.poll() is None:
            process.terminate()  # train.py saves at the end of its step
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def push(attempt: Attempt, folder: Path) -> None:
    """Save what there is by now; a store that does not answer costs no training, only what would have been saved."""
    try:
        attempt.store.put(folder / OUTPUT, attempt.path(OUTPUT))
        if (folder / "run").is_dir():
            attempt.push(folder / "run", folder / "staging")
    except StoreError as error:
        print(f"not saved now: {error}", file=sys.stderr)


def check_status(status: int, program: str, task: Task, folder: Path, attempt: Attempt) -> None:
    """Raise TaskLost for a program that was killed or asked to stop, TaskFailed for one that failed."""
    if status == 0:
        return
    if status < 0 or status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise TaskLost(f"{task.key}: {program} was ended by a signal (status {status})")
    printed = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    lines = [line for line in printed if line.startswith(f"{printable(task.category)} failed: ")]
    lines = lines or [line for line in printed if "error" in line.lower()] or printed or ["it printed nothing"]
    log = attempt.store.url_of(attempt.path(OUTPUT))
    raise TaskFailed(f"{task.key}: {program}: {lines[-1].strip()[:300]} (status {status}; see {log})")


@contextmanager
def own_folder(parent: Path, what: str, name: str) -> Iterator[Path]:
    """A folder for an attempt, deleted at the end; what dead processes left of the same task is deleted first."""
    place = parent / "aand-sweep" / hashlib.sha256(what.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    for lock in place.glob("*.lock"):
        with suppress(Timeout), FileLock(lock, blocking=False):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    folder, lock = place / name, place / f"{name}.lock"
    with FileLock(lock):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
    with suppress(OSError):  # another attempt may be there
        place.rmdir()


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # not to be loaded between fork and exec


def _die_with_parent() -> None:
    _libc.prctl(DIE_WITH_PARENT, signal.SIGKILL)
