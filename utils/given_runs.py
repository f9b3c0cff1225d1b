"""What programs are given as a run: a run folder of ours, or a folder with the public code's checkpoints.

    run, category = run_of_category(Path("AAND"), "bottle", None)       # predict.py, app.py, export.py
    run, categories = run_to_score(None, Path("data/mvtec"), None, None)    # test.py

The latter holds checkpoints_Stage1/wres50_<category>.pth and checkpoints_Stage2/wres50_<category>.pth; it becomes a run
folder by utils/official_runs.py, which needs torch, as this file does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.names import printable
from utils.cli import UsageError
from utils.runs import CONFIG, RunError, newest_run, read_config, seed_folders

STAGE_FOLDERS = ("checkpoints_Stage1", "checkpoints_Stage2")


def official_folder(path: Path) -> Path | None:
    """The folder that holds the stages' folders, if `path` is it or one of these; None for anything else."""
    for folder in (path, path.parent) if path.name in STAGE_FOLDERS else (path,):
        if not (folder / CONFIG).is_file() and any((folder / name).is_dir() for name in STAGE_FOLDERS):
            return folder
    return None


def stage_file(folder: Path, category: str, stage: int) -> Path:
    """Where the public code keeps a stage of a category."""
    return folder / STAGE_FOLDERS[stage - 1] / f"wres50_{category}.pth"


def run_of_category(path: Path, category: str | None, image_size: int | None) -> tuple[Path, str | None]:
    """The run folder, or a model's file as it is, and the category, for programs that use one category.

    Raises UsageError for an image size that is not the run's; RunError for checkpoints that cannot be used.
    """
    folder = official_folder(path)
    if folder is not None:
        from utils.official_runs import official_category_of

        return official_category_of(folder, category, image_size)
    if path.is_dir():
        check_image_size(path, image_size)
    elif image_size is not None:
        raise UsageError(f"--image_size {image_size}: the size is in {printable(path)}; leave the flag out")
    return path, category


def run_to_score(
    run: Path | None, data_root: Path, categories: Sequence[str] | None, image_size: int | None
) -> tuple[Path, Sequence[str] | None]:
    """The run folder of a data set, without `run` the newest or that of checkpoints in the working folder, and the
    categories to score (None: all).

    Raises as `run_of_category` does, and RunError where there is nothing to score.
    """
    if run is None:
        try:
            run = newest_run(data_root)
        except RunError:
            if official_folder(Path()) is None:
                raise
            run = Path()
    folder = official_folder(run)
    if folder is not None:
        from utils.official_runs import official_run_of

        return official_run_of(folder, data_root, categories, image_size)
    check_image_size(run, image_size)
    return run, categories


def check_image_size(run: Path, asked: int | None) -> None:
    """UsageError for an --image_size that is not the run's: its models are made for their own."""
    size = read_config(seed_folders(run)[0])["image_size"]
    if asked not in (None, size):
        raise UsageError(
            f"--image_size {asked}: {printable(run)} was trained at {size} pixels and is used so; leave the flag "
            f"out, or train with train.py --image_size {asked}"
        )
