"""The files of a trained category: tensors and plain built-ins, written in one piece, loaded strictly.

    checkpoints/teacher.pt               the frozen trunk, one for all categories: a run needs no other weights
    checkpoints/<category>/stage1.pt     the amplification (AAND only)
    checkpoints/<category>/stage2.pt     the student: bottleneck and decoder; of some recipes the calibration

Each file is {"settings": {..., "category"}, "seconds": training time, <part>: state dict, ...}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import WeightsError
from models.aand import AAND
from models.amplification import AmplifiedTeacher
from models.teacher import PretrainedTeacher, build_teacher
from models.tensor_files import describe_misfit, read_file
from utils.misc import atomic_write
from utils.recipes import recipe_of
from utils.runs import CheckpointError, stage_path, teacher_path

MODEL_SETTINGS = ("method", "backbone", "image_size")  # what a checkpoint must share with the model it is loaded into


def build_model(pretrained: PretrainedTeacher, method: str, calibrated: bool = False) -> AAND:
    """An untrained model: "aand" with amplification, "rd4ad" (reverse distillation) without."""
    teacher = AmplifiedTeacher(pretrained) if method == "aand" else pretrained
    return AAND(teacher, calibrated)


def save_checkpoint(
    path: Path, parts: Mapping[str, nn.Module], settings: Mapping[str, Any], seconds: float,
    category: str | None = None,
) -> None:  # fmt: skip
    """Write the state of `parts` and the settings that the model depends on; the teacher's file is of no category."""
    content = {"settings": {key: settings[key] for key in MODEL_SETTINGS} | {"category": category}, "seconds": seconds}
    save_tensors(path, content | {name: part.state_dict() for name, part in parts.items()})


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain built-ins completely or not at all; OSError if there is no room."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # given a name, torch hides why it failed
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of closing the archive, after what went wrong before
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_checkpoint(
    path: Path, parts: Mapping[str, nn.Module], settings: Mapping[str, Any], category: str | None = None
) -> float:
    """Load `parts` strictly from a file of `save_checkpoint`; returns the seconds its training took.

    Raises CheckpointError for a file that is missing or unreadable, was made with other settings or for another
    category, or does not fit: in names, shapes or kinds of numbers, or with numbers that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}; train it with train.py")
    try:
        content = read_file(path)
    except WeightsError as error:
        raise CheckpointError(f"{error}; restore it, or delete it and train again with train.py") from error
    made_with, seconds = content.get("settings"), content.get("seconds")
    if not isinstance(made_with, dict) or not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise CheckpointError(f"{path} is not a checkpoint of train.py: no settings or seconds in it")
    wanted = {key: settings[key] for key in MODEL_SETTINGS}
    if "category" in made_with:  # earlier files do not say
        wanted["category"] = category
    for key, value in wanted.items():
        found = made_with.get(key)
        if type(found) is not type(value) or found != value:
            shown = str(found)[:80] if isinstance(found, str | int | None) else f"a {type(found).__name__}"
            raise CheckpointError(f"{path} was made with {key}={shown}, the run has {value}")
    for name, part in parts.items():
        if misfit := describe_misfit(part.state_dict(), content.get(name)):
            raise CheckpointError(f"{path} does not fit the model: {name}: {misfit}")
    for name, part in parts.items():
        part.load_state_dict(dict(content[name]), strict=True)  # without the versions that torch adds to it
    return seconds


def stage_parts(model: AAND) -> dict[int, dict[str, nn.Module]]:
    """What each stage trains and saves; plain reverse distillation has no Stage I."""
    parts = {2: {"bottleneck": model.bottleneck, "decoder": model.decoder}}
    if model.calibration:
        parts[2]["calibration"] = model.calibration
    if isinstance(model.teacher, AmplifiedTeacher):
        parts[1] = {"amplification": model.teacher.amplification}
    return dict(sorted(parts.items()))


def keep_teacher(run: Path, pretrained: PretrainedTeacher, settings: Mapping[str, Any]) -> None:
    """Save the teacher of a run that begins; one that goes on keeps its own."""
    if teacher_path(run).is_file():
        load_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings)
    else:
        save_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings, seconds=0.0)


def load_model(run: Path, category: str, settings: Mapping[str, Any]) -> tuple[AAND, float]:
    """The trained model of a category in eval mode, and the seconds its training took.

    Raises CheckpointError if one of its files is missing or does not fit.
    """
    pretrained = build_teacher(settings["backbone"], weights="random")
    own_teacher = teacher_path(run, category)
    load_checkpoint(
        own_teacher if own_teacher.is_file() else teacher_path(run), {"trunk": pretrained.trunk}, settings
    )
    model = build_model(pretrained, settings["method"], recipe_of(settings["method"], settings["recipe"]).calibrated)
    seconds = sum(
        load_checkpoint(stage_path(run, category, stage), parts, settings, category)
        for stage, parts in stage_parts(model).items()
    )
    return model.eval(), seconds
