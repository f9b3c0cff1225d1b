"""A run as programs are given it: a run folder of ours, or a folder with the public code's checkpoints.

The latter holds checkpoints_Stage1/wres50_<category>.pth and checkpoints_Stage2/wres50_<category>.pth; it becomes a run
folder by utils/runs/official.py, which needs torch, as this file does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import DATASETS, open_dataset
from datasets.names import printable
from datasets.sizes import height_width, in_words
from utils.runs.folder import newest_run, open_runs
from utils.runs.settings import CONFIG
from utils.system.errors import RunError, UsageError

STAGE_FOLDERS = ("checkpoints_Stage1", "checkpoints_Stage2")
FILE_NAME = re.compile(r"wres50_([^.].*)\.pth", re.DOTALL)


def official_folder(path: Path) -> Path | None:
    """The folder that holds the stages' folders, if `path` is it or one of these; None for anything else."""
    for folder in (path, path.parent) if path.name in STAGE_FOLDERS else (path,):
        if not (folder / CONFIG).is_file() and any((folder / name).is_dir() for name in STAGE_FOLDERS):
            return folder
    return None


def stage_file(folder: Path, category: str, stage: int) -> Path:
    """The public code's file of a stage of a category."""
    return folder / STAGE_FOLDERS[stage - 1] / f"wres50_{category}.pth"


def find_checkpoints(folder: Path, asked: Sequence[str] | None = None) -> dict[str, tuple[Path, Path]]:
    """The files of each category that has both stages, or of those asked for; others are named on stderr.

    Raises RunError naming the files that are missing of categories asked for, or where there is none with both.
    """
    stages = [
        {m[1] for path in (folder / name).glob("*.pth") if path.is_file() and (m := FILE_NAME.fullmatch(path.name))}
        for name in STAGE_FOLDERS
    ]
    complete, halves = sorted(stages[0] & stages[1]), sorted(stages[0] ^ stages[1])
    if asked:
        halves = [category for category in asked if category not in complete]
    missing = [
        printable(stage_file(folder, category, stage))
        for category in halves
        for stage in (1, 2)
        if category not in stages[stage - 1]
    ]
    has = f"; with both stages there: {printable(', '.join(complete)) or 'none'}"
    if missing and (asked or not complete):
        raise RunError(f"there is no {', '.join(missing)}: a model needs both stages{has}")
    if not complete:
        raise RunError(f"there is no {printable(stage_file(folder, '<category>', 1))}, nor one of stage 2")
    if missing:
        print(f"not used, since there is no {', '.join(missing)}", file=sys.stderr)
    return {c: (stage_file(folder, c, 1), stage_file(folder, c, 2)) for c in (asked or complete)}


def run_of_category(path: Path, category: str | None, image_size: int | None) -> tuple[Path, str | None]:
    """The run folder, or a model's file as it is, and the category, for programs that use one category.

    Raises UsageError for an image size that is not the run's; RunError for checkpoints that cannot be used, or of
    several categories if none is named.
    """
    folder = official_folder(path)
    if folder is None:
        if path.is_dir():
            check_image_size(path, image_size)
        elif image_size is not None:
            raise UsageError(f"`image_size` {image_size}: the size is in {printable(path)}; leave the flag out")
        return path, category
    from utils.runs.official import converted

    files = find_checkpoints(folder, category and [category])
    if len(files) > 1:
        raise RunError(f"{printable(folder)} has several categories; choose one of: {printable(', '.join(files))}")
    [category] = files
    dataset = next((name for name, reader in DATASETS.items() if category in reader.CATEGORIES), "folder")
    return converted(folder, files, dataset, image_size), category


def run_to_score(
    run: Path | None, data_root: Path, categories: Sequence[str] | None, image_size: int | None
) -> tuple[Path, Sequence[str] | None]:
    """The run folder of a data set, without `run` the newest or that of checkpoints in the working folder, and the
    categories to score (None: all).

    Raises as `run_of_category` does, RunError where there is nothing to score, and DataError for a data set that cannot
    be used.
    """
    if run is None:
        try:
            run = newest_run(data_root)
        except RunError:
            if official_folder(Path()) is None:
                raise
            run = Path()
    folder = official_folder(run)
    if folder is None:
        check_image_size(run, image_size)
        return run, categories
    from utils.runs.official import converted

    files = find_checkpoints(folder, categories)
    source = open_dataset(data_root)
    root, there = printable(source.root), printable(", ".join(source.categories))
    if absent := [category for category in files if category not in source.categories]:
        if categories or len(absent) == len(files):
            raise RunError(f"{root} has no {printable(', '.join(absent))}; it has: {there}")
        print(f"checkpoints, but not in {root}: {printable(', '.join(absent))}", file=sys.stderr)
    files = {category: pair for category, pair in files.items() if category not in absent}
    return converted(folder, files, source.name, image_size, source), list(files)


def check_image_size(run: Path, asked: int | None) -> None:
    """Refuse an image size that is not the run's, with a UsageError: its models are made for their own."""
    size = open_runs(run)[0].settings.image_size
    if asked is not None and height_width(asked) != height_width(size):
        raise UsageError(
            f"`image_size` {asked}: {printable(run)} was trained at {in_words(size)} pixels and is used so; leave "
            f"the flag out, or train with train.py `image_size` {asked}"
        )
