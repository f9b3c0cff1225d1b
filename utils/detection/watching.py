"""A folder that is watched: image files are scored as they arrive, each once, until the program is stopped.

A file is complete when its size and time have stayed for SETTLED seconds. A line is written for each, with its size and
time: a file that is written anew under the same name is scored again. Where the lines go to a file, the files in it are
not scored again after a restart; a line that was cut off by the end of the program is removed, and its file scored.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from datasets.base import DataError
from datasets.folders import walk
from datasets.formats import UNREAD
from datasets.marks import NO_PHOTOGRAPHS, mark_of
from datasets.names import printable
from utils.detection.detector import Detector
from utils.detection.files import Summary, predict_batches
from utils.detection.output import picture_targets
from utils.detection.pictures import Kind, Pictures
from utils.system.errors import UsageError
from utils.system.files import naming

SETTLED = 1.0  # seconds that a file has not changed for
PATIENCE = 10.0  # seconds after which a file that cannot be read is no longer waited for
POLL = 0.5  # seconds between two looks at the folder
BURST = 4  # batches that are scored before the folder is looked at again

State = tuple[int, int]  # of a file: its size, and the time of its last change in nanoseconds


@dataclass
class Arrivals:
    """Files in a folder and those below that are complete and were not scored yet."""

    folder: Path
    done: dict[str, State] = field(default_factory=dict)  # by name, as it is written
    waiting: dict[Path, tuple[State, float]] = field(default_factory=dict)  # since when they have been as they are

    def look(self, now: float) -> list[Path]:
        """The complete files, those that were changed last at the end."""
        there = {path: state for path, state in self._files() if self.done.get(printable(path)) != state}
        before, self.waiting = self.waiting, {}
        for path, state in there.items():
            known = before.get(path)
            self.waiting[path] = known if known and known[0] == state else (state, now)
        complete = [path for path, (_, since) in self.waiting.items() if now - since >= SETTLED]
        return sorted(complete, key=lambda path: self.waiting[path][0][1])

    def state(self, path: Path) -> State:
        """The state in which a complete file was found."""
        return self.waiting[path][0]

    def is_given_up(self, path: Path, now: float) -> bool:
        """Tell whether a complete file that cannot be read has been waited for long enough."""
        return now - self.waiting[path][1] >= PATIENCE

    def is_as_found(self, path: Path) -> bool:
        """Tell whether a file is still there, and as it was found."""
        return state_of(path) == self.state(path)

    def finish(self, path: Path) -> None:
        self.done[printable(path)], _ = self.waiting.pop(path)

    def _files(self) -> Iterator[tuple[Path, State]]:
        for _, contents in walk(self.folder):
            if isinstance(contents, DataError):
                continue  # it may be there again at the next look
            for path in [*contents.images, *(other for other in contents.others if other.suffix.lower() in UNREAD)]:
                if (state := state_of(path)) and path.is_file():
                    yield path, state


def state_of(path: Path) -> State | None:
    """The size and time of a file, None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


@contextmanager
def journal(path: Path | None) -> Iterator[tuple[TextIO, dict[str, State]]]:
    """The file that lines are added to, and what was scored according to those that are there; standard output without
    a path. Raises UsageError for another kind of file, or one that another process adds to."""
    if path is None:
        yield sys.stdout, {}
        return
    if path.suffix != ".jsonl":
        raise UsageError(f"`output` {path}: with `watch` it is a .jsonl file, to which lines are added")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"another process writes to {path}; give another `output`") from None
    try:
        done = read_journal(path)
        with naming(path), path.open("a", encoding="utf-8", buffering=1) as file:
            yield file, done
    finally:
        lock.release()
        Path(f"{path}.lock").unlink(missing_ok=True)


def read_journal(path: Path) -> dict[str, State]:
    """What was scored according to a file; a line that is not whole, at its end, is removed from it."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("rb+") as file:
            file.truncate(len(whole))
    done = {}
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), 1):
        try:
            row: dict[str, Any] = json.loads(line)
            done[row["path"]] = (row["size"], row["modified"])
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"`output` {path}: line {number} is none of a watched folder; give another file") from None
    return done


def watch(
    detector: Detector, folder: Path, output: Path | None, pictures: Mapping[Kind, Path | None], workers: int,
    summary: Summary,
) -> None:
    """Score what arrives in `folder` until the program is stopped, which raises KeyboardInterrupt; `summary` counts.

    pictures: folders of the pictures to write, by kind.
    """
    with journal(output) as (file, done):
        arrivals, writer, gone = Arrivals(folder, done), Pictures(), False
        while True:
            started = time.monotonic()
            if folder.is_dir() == gone:
                gone = not gone
                said = "is gone; waiting until it is there again" if gone else "is there again"
                print(printable(f"the folder {folder} {said}"), file=sys.stderr)
            complete = [path for path in arrivals.look(started) if not is_own(arrivals, path)]
            burst = complete[: BURST * detector.batch_size]
            writer.targets = picture_targets(burst, pictures, folder) if burst else {}
            for records in predict_batches(detector, burst, workers):
                for record in writer.save(detector, records, workers):
                    if not arrivals.is_as_found(record.path):
                        continue  # it goes on changing, or is gone
                    if record.detection is None and not arrivals.is_given_up(record.path, time.monotonic()):
                        continue  # what is not complete yet may still become so
                    size, modified = arrivals.state(record.path)
                    line = json.dumps(record.to_dict() | {"size": size, "modified": modified}, allow_nan=False)
                    file.write(line + "\n")
                    file.flush()
                    arrivals.finish(record.path)
                    summary.add(record)
            if len(burst) == len(complete):
                time.sleep(max(POLL, time.monotonic() - started))  # a large folder is not looked at all the time


def is_own(arrivals: Arrivals, path: Path) -> bool:
    """Tell whether a file is a picture that our programs wrote, which is done with then."""
    if mark_of(path) not in NO_PHOTOGRAPHS:
        return False
    arrivals.finish(path)
    return True


def check_watch(folder: Path, pictures: Mapping[Kind, Path | None]) -> None:
    """UsageError for a folder that cannot be watched, and for pictures that would be among its images."""
    if not folder.is_dir():
        raise UsageError(f"`watch` {folder}: there is no such folder")
    for kind, place in pictures.items():
        if place and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            raise UsageError(f"`{kind.argument}` {place} lies in the folder that is watched; choose another place")
