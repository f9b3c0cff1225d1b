"""Start a run or resume one: its settings, the command that started it, and one process at a time in its folder."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from utils.runs.folder import CHECKPOINTS, SEED_FOLDERS, Run, open_runs
from utils.runs.settings import CONFIG, refuse_rated, setting_differences
from utils.system.errors import RunError
from utils.system.files import EARLIER_TEMPORARY, TEMPORARY, write_text

LOCK = ".lock"
GONE = ("--select", "--holdout")  # flags of earlier versions, with a value each
PLACES = (CHECKPOINTS, "maps", "exported")  # folders of a run that are written to
WRITTEN = ("log.txt", "metrics.jsonl", CHECKPOINTS)  # in a run, after CONFIG


def open_run(folder: Path, settings: Mapping[str, Any], other_seeds: Iterable[Path] = ()) -> None:
    """Start a run folder, or go on with one that was started with the same settings; raises as `check_settings`."""
    check_settings(folder, settings, other_seeds)
    if not (folder / CONFIG).is_file():
        write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")


def check_settings(folder: Path, settings: Mapping[str, Any], other_seeds: Iterable[Path] = ()) -> None:
    """Refuse settings with which `open_run` could not be called; but for the seed those of `other_seeds`, the folders
    of the same run, must be the same.

    Raises RunError listing the differences if the folder holds a run with other settings, or one of several seeds, or
    what a run would write to but no run wrote.
    """
    if not (folder / CONFIG).is_file():
        foreign = [name for name in (CONFIG, *WRITTEN) if os.path.lexists(folder / name)]
        if foreign:
            raise RunError(f"{folder} has {foreign[0]}, but is no run folder of train.py: choose another `output`")
    if any(folder.glob(f"{SEED_FOLDERS}/{CONFIG}")):
        raise RunError(f"{folder} holds a run of several seeds; go on with `seeds` or choose another `output`")
    for other in (*other_seeds, folder):
        if not (other / CONFIG).is_file():
            continue
        before = Run(other).config
        refuse_rated(other, before)
        own_seed = {} if other == folder else {"seed": before.get("seed")}
        if differences := "; ".join(setting_differences(before, {**settings, **own_seed})):
            raise RunError(f"{other} holds a run with other settings ({differences}); choose another `output`")


def started_with(run: Path) -> list[str]:
    """The flags that a run of train.py was started with, without those that are gone and changed nothing; RunError if
    `run` is none, or cannot be resumed."""
    config = open_runs(run)[0].config
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
        raise RunError(f"{path} is no lock of train.py; choose another `output`")
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"another process is training in {folder}; wait until it has finished, or choose another `output`"
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
    paths, names = [folder / name for name in os.listdir(folder)], [TEMPORARY]
    if _is_run(folder):
        tops = [folder / name for name in PLACES if not (folder / name).is_symlink()]
        paths += [Path(place, name) for top in tops for place, _, inside in os.walk(top) for name in inside]
        names.append(EARLIER_TEMPORARY)
    for path in paths:
        if any(name.fullmatch(path.name) for name in names) and not path.is_dir():
            path.unlink(missing_ok=True)


def unfinished_run(
    pattern: str, settings: Mapping[str, Any], seeds: Sequence[int], runs: Path = Path("runs")
) -> Path | None:
    """The newest run among those named like `pattern` that has these settings and categories, lacks a trained one, and
    is of no process any more; None if there is none. `seeds`: of a run of several."""
    for folder in sorted(runs.glob(pattern), reverse=True):  # names end with the time
        members = {Run(folder / f"seed{seed}"): {**settings, "seed": seed} for seed in seeds} or {Run(folder): settings}
        if _is_unfinished(members) and not _is_locked(folder):
            return folder
    return None


def _is_unfinished(members: Mapping[Run, Mapping[str, Any]]) -> bool:
    """Tell whether the runs that were started have these settings, and not all is trained."""
    started = [run for run in members if (run.folder / CONFIG).is_file()]
    try:
        for run in started:
            settings = members[run]
            if run.config.get("categories") != settings["categories"] or setting_differences(run.config, settings):
                return False
    except RunError:
        return False
    every = [run.category(name) for run, settings in members.items() for name in settings["categories"]]
    return bool(started) and not all(category.run in started and category.is_trained for category in every)


def _is_run(folder: Path) -> bool:
    try:
        return all(run.config for run in open_runs(folder))
    except RunError:
        return False


def _is_locked(folder: Path) -> bool:
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
