"""The run folder of a task in a store, handed from one attempt to finish it to the next, on whatever machine.

    tasks/<key>/0002-1f3a9c/about.json       an attempt that began: where and when
    tasks/<key>/0002-1f3a9c/files/<sha256>   files of its run folder, named after their content
    tasks/<key>/0002-1f3a9c/snapshot.json    which of them make up the run folder, written after them
    tasks/<key>/0002-1f3a9c/output.txt       what the programs have printed
    tasks/<key>/complete.json                the files of the finished run, written after all of them

An attempt writes below its own name alone, and complete.json. So half a push leaves the snapshot before it whole, and
one that was taken for dead harms none that came later (docs/sweeps.md). Of other attempts' files only the progress of
stages is deleted.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.names import printable
from utils.runs.history import EPOCHS, LOG
from utils.sweep.store import Content, Store
from utils.system.errors import StoreError, Superseded
from utils.system.files import sha256_of

APPENDED = (LOG, EPOCHS)  # files that grow; all others of a run folder are replaced as a whole
PROGRESS = ".progress.pt"
ATTEMPT, DIGEST = re.compile(r"\d{4}-[0-9a-f]{6}"), re.compile(r"[0-9a-f]{64}")
LAST_ATTEMPT = 9999
TASKS, COMPLETE, SNAPSHOT, OUTPUT = "tasks", "complete.json", "snapshot.json", "output.txt"


class Attempt:
    """One attempt at a task; the latest one alone goes on."""

    def __init__(self, store: Store, key: str, name: str):
        self.store, self.key, self.name = store, key, name
        self.pushed: set[str] = set()  # digests of the files that the snapshot names

    @classmethod
    def begin(cls, store: Store, key: str) -> Attempt:
        """Begin an attempt, to which all earlier ones give way."""
        latest = max(attempts(store, key), default="0000")
        if int(latest[:4]) == LAST_ATTEMPT:
            raise StoreError(f"{store.url_of(f'{TASKS}/{key}')} has an attempt {latest}, after which there can be none")
        attempt = cls(store, key, f"{int(latest[:4]) + 1:04d}-{uuid.uuid4().hex[:6]}")
        about = {"node": platform.node(), "process": os.getpid(), "began": datetime.now().isoformat(timespec="seconds")}
        store.write_json(attempt.path("about.json"), about)
        return attempt

    def path(self, name: str) -> str:
        return f"{TASKS}/{self.key}/{self.name}/{name}"

    def check(self) -> None:
        """Raise Superseded unless this is the latest attempt, and none has finished."""
        latest = max(attempts(self.store, self.key), default=self.name)
        if latest > self.name:
            raise Superseded(f"{self.key}: attempt {self.name} gives way to {latest}")
        if completed(self.store, self.key):
            raise Superseded(f"{self.key}: another attempt than {self.name} has finished it")

    def push(self, run: Path, staging: Path) -> dict[str, str]:
        """Bring a run folder, in which a process may be writing, to the store; returns its files with their digests.

        staging: a folder to make on the same disk. Raises Superseded, StoreError.
        """
        self.check()
        files = {}
        try:
            for name in copy_run(run, staging):
                digest = sha256_of(staging / name)
                if digest not in self.pushed:
                    self.store.put(staging / name, self.path(f"files/{digest}"))
                files[name] = digest
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.store.write_json(self.path(SNAPSHOT), {"files": files})
        outdated, self.pushed = self.pushed - set(files.values()), set(files.values())
        self.store.remove(self.path(f"files/{digest}") for digest in sorted(outdated))
        return files

    def finish(self, run: Path, staging: Path, facts: Mapping[str, Any]) -> Content:
        """Push the finished run; from now on it is the task's result. Returns complete.json; raises as `push`."""
        content = {"attempt": self.name, "files": self.push(run, staging), **facts}
        self.store.write_json(f"{TASKS}/{self.key}/{COMPLETE}", content)
        for other in attempts(self.store, self.key):
            snapshot = self.store.read_json(f"{TASKS}/{self.key}/{other}/{SNAPSHOT}") or {"files": {}}
            with suppress(ValueError):
                _, files = check_content({**snapshot, "attempt": other})
                unused = [digest for name, digest in files.items() if name.endswith(PROGRESS)]
                self.store.remove(f"{TASKS}/{self.key}/{other}/files/{digest}" for digest in unused)
        return content


def attempts(store: Store, key: str) -> list[str]:
    """The names of all attempts at a task, in their order."""
    start = f"{TASKS}/{key}/"
    parts = [name.removeprefix(start).split("/") for name in store.names(start.rstrip("/"))]
    return sorted({first for first, *rest in parts if rest and ATTEMPT.fullmatch(first)})


def completed(store: Store, key: str) -> Content | None:
    """The content of a finished task's complete.json: {"attempt", "files", ...}; None where it cannot be used."""
    with suppress(ValueError):
        return check_complete(store.read_json(f"{TASKS}/{key}/{COMPLETE}"))
    return None


def check_complete(content: Content | None) -> Content:
    """The content of a complete.json; ValueError if it is not what `Attempt.finish` writes."""
    if content is None:
        raise ValueError(f"its {COMPLETE} cannot be read")
    seconds = content.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise ValueError(f"its {COMPLETE} has seconds that are no duration")
    try:
        check_content(content)
    except ValueError as error:
        raise ValueError(f"its {COMPLETE} {error}") from None
    return content


def completed_keys(store: Store) -> list[str]:
    """The keys of all finished tasks."""
    paths = [PurePosixPath(name) for name in store.names(TASKS)]
    return [str(path.parent.relative_to(TASKS)) for path in paths if path.name == COMPLETE]


def pull(store: Store, key: str, run: Path) -> str | None:
    """Make the run folder as the latest attempt with a whole snapshot left it; returns that attempt's name, or None."""
    for name in reversed(attempts(store, key)):
        snapshot = store.read_json(f"{TASKS}/{key}/{name}/{SNAPSHOT}")
        if snapshot is None:
            continue
        with suppress(StoreError):  # a file that is missing, because the attempt lives on or a push was cut: one before
            fetch_files(store, key, {**snapshot, "attempt": name}, run)
            return name
        shutil.rmtree(run, ignore_errors=True)
    return None


def fetch_files(store: Store, key: str, content: Content, run: Path, only: Iterable[str] | None = None) -> None:
    """Bring the files that a snapshot or complete.json names to a folder.

    only: names of some. Raises StoreError for a file that is missing, or has another content than it should, and for
    names that no `Attempt.push` gives.
    """
    try:
        attempt, files = check_content(content)
    except ValueError as error:
        raise StoreError(f"a snapshot in the store {error}") from error
    for name, digest in files.items():
        if only is not None and name not in only:
            continue
        stored = f"{TASKS}/{key}/{attempt}/files/{digest}"
        store.get(stored, run / name)
        if sha256_of(run / name) != digest:
            raise StoreError(f"{store.url_of(stored)} is damaged: its content is not that of its name")


def copy_run(run: Path, target: Path) -> list[str]:
    """Copy a run folder from which a process may be training, so that training can go on from the copy; the files'
    names.

    What grows is copied last: the curves may be ahead of the progress, which cuts them back, and never behind it.
    """
    while True:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
        names = [path for path in files if not any(part.startswith(".") for part in path.parts)]
        try:
            for name in sorted(names, key=lambda path: path.name in APPENDED):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(run / name, target / name)
        except FileNotFoundError:  # a stage's progress, at the end of the stage: look again
            continue
        return [name.as_posix() for name in names]


def _copy(source: Path, target: Path) -> None:
    if source.name not in APPENDED:
        with suppress(OSError):  # a disk without hard links
            os.link(source, target)  # replaced by its writer, never changed
            return
    shutil.copyfile(source, target)


def check_content(content: Content) -> tuple[str, dict[str, str]]:
    """The attempt that a snapshot is of, and the checksums that its files are stored under, by their names in the run.

    ValueError unless attempt and checksums look like such, and the names are plain ones of files in the run.
    """
    attempt, files = content.get("attempt"), content.get("files")
    if not isinstance(attempt, str) or not ATTEMPT.fullmatch(attempt):
        raise ValueError("names no attempt")
    if not isinstance(files, dict):
        raise ValueError("names no files")
    for name, digest in files.items():
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or any(not part or part.startswith(".") for part in parts):
            raise ValueError(f"names a file outside of its run: {printable(name)[:200]}")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ValueError(f"names a file that is stored under no checksum: {printable(name)[:200]}")
        if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
            raise ValueError(f"names a file that is a folder too: {printable(name)[:200]}")
    return attempt, files
