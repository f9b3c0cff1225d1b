"""The run folder of a task in a store (docs/sweeps.md), handed from one attempt to finish it to the next.

An attempt writes below its own name alone, and complete.json. So half a push leaves the snapshot before it whole, and
one that was taken for dead harms none that came later. Of other attempts' files only the progress of stages is deleted.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
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
    """An attempt at a task; the latest one alone goes on."""

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
        `staging` is a folder to make on the same disk. Raises Superseded."""
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
        for snapshot in snapshots(self.store, self.key):
            with suppress(ValueError):
                files = check_content(snapshot)["files"]
                unused = [digest for name, digest in files.items() if name.endswith(PROGRESS)]
                self.store.remove(f"{TASKS}/{self.key}/{snapshot['attempt']}/files/{digest}" for digest in unused)
        return content


def attempts(store: Store, key: str) -> list[str]:
    """The names of all attempts at a task, in their order."""
    start = f"{TASKS}/{key}/"
    parts = [name.removeprefix(start).split("/") for name in store.names(start.rstrip("/"))]
    return sorted({first for first, *rest in parts if rest and ATTEMPT.fullmatch(first)})


def completed(store: Store, key: str) -> Content | None:
    """The content of a finished task's complete.json: {"attempt", "files", ...}; None where it cannot be used."""
    with suppress(ValueError):
        return check_content(store.read_json(f"{TASKS}/{key}/{COMPLETE}"))
    return None


def completed_keys(store: Store) -> list[str]:
    """The keys of all finished tasks."""
    paths = [PurePosixPath(name) for name in store.names(TASKS)]
    return [str(path.parent.relative_to(TASKS)) for path in paths if path.name == COMPLETE]


def snapshots(store: Store, key: str) -> Iterator[Content]:
    """Each attempt's snapshot, the latest first: {"attempt", "files"}, as far as it is one."""
    for name in reversed(attempts(store, key)):
        if snapshot := store.read_json(f"{TASKS}/{key}/{name}/{SNAPSHOT}"):
            yield {**snapshot, "attempt": name}


def pull(store: Store, key: str, run: Path) -> str | None:
    """Make the run folder as the latest attempt with a whole snapshot left it; returns that attempt's name, or None."""
    for snapshot in snapshots(store, key):
        with suppress(StoreError):  # a file that is missing, because the attempt lives on or a push was cut: one before
            fetch_files(store, key, snapshot, run)
            return snapshot["attempt"]
        shutil.rmtree(run, ignore_errors=True)
    return None


def fetch_files(store: Store, key: str, content: Content, run: Path, only: Iterable[str] | None = None) -> None:
    """Bring the files that a snapshot or complete.json names to a folder, or `only` some of them.

    Raises StoreError for a file that is missing or damaged, and for names that no `Attempt.push` gives.
    """
    try:
        check_content(content, "a snapshot in the store")
    except ValueError as error:
        raise StoreError(str(error)) from error
    for name, digest in content["files"].items():
        if only is None or name in only:
            stored = f"{TASKS}/{key}/{content['attempt']}/files/{digest}"
            store.get(stored, run / name)
            if sha256_of(run / name) != digest:
                raise StoreError(f"{store.url_of(stored)} is damaged: its content is not that of its name")


def copy_run(run: Path, target: Path) -> list[str]:
    """Copy a run folder in which a process may be training, so that it can go on from the copy; returns its files.

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


def check_content(content: Content | None, what: str = f"its {COMPLETE}") -> Content:
    """The content of a complete.json or a snapshot; ValueError about `what` if it is not what an attempt writes.

    Attempt and checksums must look like such, and the names be plain ones of files in the run.
    """
    if content is None:
        raise ValueError(f"{what} cannot be read")
    attempt, files, seconds = content.get("attempt"), content.get("files"), content.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise ValueError(f"{what} has seconds that are no duration")
    if not isinstance(attempt, str) or not ATTEMPT.fullmatch(attempt):
        raise ValueError(f"{what} names no attempt")
    if not isinstance(files, dict):
        raise ValueError(f"{what} names no files")
    for name, digest in files.items():
        parts, shown = name.split("/"), printable(name)[:200]
        if not name.isprintable() or "\\" in name or any(not part or part.startswith(".") for part in parts):
            raise ValueError(f"{what} names a file outside of its run: {shown}")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ValueError(f"{what} names a file that is stored under no checksum: {shown}")
        if any("/".join(parts[:end]) in files for end in range(1, len(parts))):
            raise ValueError(f"{what} names a file that is a folder too: {shown}")
    return content
