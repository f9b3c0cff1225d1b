"""The public code's folders: checkpoints_Stage1/wres50_<category>.pth and checkpoints_Stage2/wres50_<category>.pth."""

from __future__ import annotations

from pathlib import Path

from utils.runs.settings import CONFIG

STAGE_FOLDERS = ("checkpoints_Stage1", "checkpoints_Stage2")


def official_folder(path: Path) -> Path | None:
    """The folder that holds the stages' folders, if `path` is it or one of these; None for anything else."""
    for folder in (path, path.parent) if path.name in STAGE_FOLDERS else (path,):
        if not (folder / CONFIG).is_file() and any((folder / name).is_dir() for name in STAGE_FOLDERS):
            return folder
    return None


def stage_file(folder: Path, category: str, stage: int) -> Path:
    """The public code's file of a stage of a category."""
    return folder / STAGE_FOLDERS[stage - 1] / f"wres50_{category}.pth"
