"""Runs that go on: the command that started one, the unfinished run of a command, and one process at a time."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.runs.folder import (
    CONFIG,
    read_config,
    refuse_rated,
    seed_folders,
    setting_differences,
    stage_path,
    thresholds_path,
)
from utils.system.errors import RunError
from utils.system.files import EARLIER_TEMPORARY, TEMPORARY

LOCK = ".lock"
GONE = ("--select", "--holdout")  # flags of earlier versions, with a value each
PLACES = ("checkpoints", "maps", "exported")  # folders of a run that are written to


def started_with(run: Path) -> list[str]:
    """The flags that a run of train.py was started with, without those that are gone and changed nothing; RunError if
    `run` is none, or cannot be resumed."""
    config = read_config(seed_folders(run)[0])
    refuse_rated(run, config)
    try:
        flags = iter(shlex.split(config["command"])[2:])  # after python and train.py
    except ValueError as error:
        raise RunError(f"{run / CONFIG} has no command that can be run again ({error})") from error
    kept = []
    for flag in flags:
        if flag in GONE:
            next(flags, None)
        elif flag.split("=")[0] not in GONE:
            kept.append(flag)
    return kept


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder, which is made if missing, and clear away what a killed one left.

    The lock is the operating system's: that of a process that died is free. It stays in a run; a folder that was made
    and in which nothing was written is removed again. Raises RunError if another process has the lock, or it is a file
    of someone else.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    locks_new = not os.path.lexists(path)
    foreign = not locks_new and (path.is_symlink() or not path.is_file() or path.stat().st_size)
    if foreign and not _is_run(folder):
        raise RunError(f"{path} is no lock of train.py; choose another --output")
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"another process is training in {folder}; wait until it has finished, or choose another --output"
        ) from None
    try:
        remove_temporaries(folder)
        yield
    finally:
        if locks_new and not _is_run(folder):
            with suppress(OSError):  # Windows keeps a file that is open; another run may have come into `runs`
                path.unlink()
                for empty in made:
                    empty.rmdir()
        lock.release()


def remove_temporaries(folder: Path) -> None:
    """Delete what `atomic_write` left in a run folder when its process was killed: where a run is written to, no link
    followed; in a folder that is no run yet only what bears the name that nobody else gives."""
    found, names = [folder / name for name in os.listdir(folder)], [TEMPORARY]
    if _is_run(folder):
        tops = [folder / name for name in PLACES if not (folder / name).is_symlink()]
        found += [Path(place, name) for top in tops for place, _, inside in os.walk(top) for name in inside]
        names.append(EARLIER_TEMPORARY)
    for path in found:
        if any(name.fullmatch(path.name) for name in names) and not path.is_dir():
            path.unlink(missing_ok=True)


def unfinished_run(
    pattern: str, settings: Mapping[str, Any], seeds: Sequence[int], runs: Path = Path("runs")
) -> Path | None:
    """The newest run among those named like `pattern` that has these settings and categories, lacks a trained one, and
    is of no process any more; None if there is none. `seeds`: of a run of several."""
    for folder in sorted(runs.glob(pattern), reverse=True):  # names end with the time
        members = {folder / f"seed{seed}": {**settings, "seed": seed} for seed in seeds} or {folder: settings}
        if _is_unfinished(members) and not _is_locked(folder):
            return folder
    return None


def _is_unfinished(members: Mapping[Path, Mapping[str, Any]]) -> bool:
    """Whether run folders, or those of them that are there, are of these settings, and not all is trained."""
    try:
        started = {folder: read_config(folder) for folder in members if (folder / CONFIG).is_file()}
    except RunError:
        return False
    for folder, before in started.items():
        settings = members[folder]
        if before.get("categories") != settings["categories"] or setting_differences(before, settings):
            return False
    wanted = [(folder, name, settings) for folder, settings in members.items() for name in settings["categories"]]
    return bool(started) and not all(is_finished(*one) for one in wanted)


def is_finished(folder: Path, category: str, settings: Mapping[str, Any]) -> bool:
    """Whether a category of a run has all that its training leaves: the last stage, and thresholds where asked for."""
    paths = [stage_path(folder, category, 2)]
    if settings.get("calibration"):
        paths.append(thresholds_path(folder, category))
    return all(path.is_file() for path in paths)


def _is_run(folder: Path) -> bool:
    try:
        return all(read_config(member) for member in seed_folders(folder))
    except RunError:
        return False


def _is_locked(folder: Path) -> bool:
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
