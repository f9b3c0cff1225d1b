"""A run as programs are given it: a run folder of ours, or a folder with the public code's checkpoints.

    run, category = run_of_category(Path("AAND"), "bottle", None)       # predict.py, app.py, export.py
    run, categories = run_to_score(None, Path("data/mvtec"), None, None)    # test.py

The latter holds checkpoints_Stage1/wres50_<category>.pth and checkpoints_Stage2/wres50_<category>.pth; it becomes a run
folder by utils/runs/official.py, which needs torch, as this file does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.names import printable
from utils.runs.folder import newest_run, open_runs
from utils.runs.official_files import official_folder
from utils.system.errors import RunError, UsageError


def run_of_category(path: Path, category: str | None, image_size: int | None) -> tuple[Path, str | None]:
    """The run folder, or a model's file as it is, and the category, for programs that use one category.

    Raises UsageError for an image size that is not the run's; RunError for checkpoints that cannot be used.
    """
    folder = official_folder(path)
    if folder is not None:
        from utils.runs.official import official_category_of

        return official_category_of(folder, category, image_size)
    if path.is_dir():
        check_image_size(path, image_size)
    elif image_size is not None:
        raise UsageError(f"`image_size` {image_size}: the size is in {printable(path)}; leave the flag out")
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
        from utils.runs.official import official_run_of

        return official_run_of(folder, data_root, categories, image_size)
    check_image_size(run, image_size)
    return run, categories


def check_image_size(run: Path, asked: int | None) -> None:
    """Refuse an image size that is not the run's, with a UsageError: its models are made for their own."""
    size = open_runs(run)[0].settings.image_size
    if asked not in (None, size):
        raise UsageError(
            f"`image_size` {asked}: {printable(run)} was trained at {size} pixels and is used so; leave the flag "
            f"out, or train with train.py `image_size` {asked}"
        )
