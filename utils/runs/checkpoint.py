"""The files of a trained category: tensors and plain built-ins, written in one piece, loaded strictly.

    checkpoints/teacher.pt               the frozen trunk, one for all categories: a run needs no other weights
    checkpoints/<category>/stage1.pt     the amplification (AAND only)
    checkpoints/<category>/stage2.pt     the student: bottleneck and decoder; of some recipes its heads, the
                                         calibration, and what is usual for similar patches

Each file is {"settings": {..., "category"}, "seconds": training time, <part>: state dict, ...}; those of a stage also
hold "made_with": the settings of the training, and what the files are that they were trained upon, by which other ones
are told.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.sizes import height_width
from datasets.view import View
from models import WeightsError, probe_image
from models.aand import AAND, LATER_PARTS, build_model
from models.recipes import METHODS
from models.teacher import PretrainedTeacher, build_teacher
from models.tensor_files import describe_misfit, fingerprint, read_file
from utils.runs.settings import FREE_SETTINGS, TEACHER, VIEW, describe
from utils.system.errors import CheckpointError
from utils.system.files import atomic_write

MODEL_SETTINGS = ("method", "backbone", "image_size")  # what a checkpoint must share with the model it is loaded into
# What no training goes by, or what is said elsewhere; and of the data what is another where they have been moved:
NOT_TRAINED_BY = (
    *FREE_SETTINGS, *MODEL_SETTINGS, "data_root", "dataset", "aux_path", "weights", "checkpoints", "skipped",
    "planned_from",
)
PROBE_SIZE = 256  # pixels at most: numbers that make NaN do so at any size

MadeWith = Mapping[str, Any]  # "seed" and other settings -> their values, names of files -> what is in them


def save_checkpoint(
    path: Path, parts: Mapping[str, nn.Module], settings: Mapping[str, Any], seconds: float,
    category: str | None = None, made_with: MadeWith | None = None,
) -> None:
    """Write the state of `parts`; the teacher's file is of no category, and made with nothing."""
    content = {"settings": {key: settings[key] for key in MODEL_SETTINGS} | {"category": category}, "seconds": seconds}
    if made_with:
        content["made_with"] = dict(made_with)
    save_tensors(path, content | {name: part.state_dict() for name, part in parts.items()})


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain built-ins completely or not at all; OSError if there is no room."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # given a name, torch hides why it failed
        try:
            torch.save(content, file)
        except RuntimeError as error:  # of closing the archive, after what went wrong before
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_checkpoint(
    path: Path, parts: dict[str, nn.Module], settings: Mapping[str, Any], category: str | None = None,
    beside: MadeWith | None = None,
) -> float:
    """Load `parts` strictly from a file of `save_checkpoint`; returns the seconds its training took. LATER_PARTS that
    an earlier file lacks are taken out of `parts`.

    beside: the settings and the files that it is used with. Raises CheckpointError for a file that is missing or
    unreadable, was made with other settings, other files or for another category, or does not fit: in names, shapes or
    kinds of numbers, or with numbers that are not finite.
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
        before = made_with.get(key)
        if type(before) is not type(value) or before != value:
            text = str(before)[:80] if isinstance(before, str | int | None) else f"a {type(before).__name__}"
            raise CheckpointError(f"{path} was made with {key}={text}, the run has {value}")
    _refuse_others(path, content.get("made_with", {}), beside or {})
    for name in LATER_PARTS:
        if name not in content:
            parts.pop(name, None)
    for name, part in parts.items():
        if misfit := describe_misfit(part.state_dict(), content.get(name)):
            raise CheckpointError(f"{path} does not fit the model: {name}: {misfit}")
    for name, part in parts.items():
        part.load_state_dict(dict(content[name]), strict=True)  # without the versions that torch adds to it
    return seconds


def keep_teacher(path: Path, pretrained: PretrainedTeacher, settings: Mapping[str, Any]) -> MadeWith:
    """Save the teacher of a new run, and return what all stages are made with; a resumed run keeps its own."""
    trunk = {"trunk": pretrained.trunk}
    if path.is_file():
        load_checkpoint(path, trunk, settings)
    else:
        save_checkpoint(path, trunk, settings, seconds=0.0)
    return {**training_settings(settings), TEACHER: state_of(trunk)}


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with others of which the same data give another model."""
    return {name: value for name, value in settings.items() if name not in NOT_TRAINED_BY}


def load_model(
    teacher: Path, stage: Callable[[int], Path], category: str, settings: Mapping[str, Any], view: View | None
) -> tuple[AAND, float]:
    """The trained model in these files, for `RunCategory.load_model`; view: that of view.json, None without one."""
    pretrained = build_teacher(settings["backbone"], weights="random")
    load_checkpoint(teacher, {"trunk": pretrained.trunk}, settings)
    beside = training_settings(settings) | {
        TEACHER: state_of({"trunk": pretrained.trunk}), VIEW: view.word if view else ""
    }
    model = build_model(pretrained, METHODS[settings["method"]][settings["recipe"]])
    seconds = 0.0
    for number, parts in model.stage_parts().items():
        path = stage(number)
        made = set(parts)
        seconds += load_checkpoint(path, parts, settings, category, beside)
        if lacking := made - set(parts):
            model.do_without(lacking)
        beside[path.name] = state_of(parts)
    _probe(model.eval(), teacher, stage, min(*height_width(settings["image_size"]), PROBE_SIZE))
    return model, seconds


def state_of(parts: Mapping[str, nn.Module]) -> str:
    """The fingerprint of trained parts, one word."""
    return fingerprint({name: part.state_dict() for name, part in parts.items()})


def model_word(model: AAND, view: View) -> str:
    """The fingerprint of a model as `load_model` gives it and of its view, by which measurements name it."""
    parts = {name: part for stage in model.stage_parts().values() for name, part in stage.items()}
    text = f"{state_of(parts | {'trunk': model.pretrained.trunk})} {view.word}"
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_others(path: Path, made_with: Any, beside: MadeWith) -> None:
    """CheckpointError where a stage was made with something else than is there; earlier files do not say."""
    if not isinstance(made_with, dict):
        raise CheckpointError(f"{path} is not a checkpoint of train.py: what it was made with cannot be read")
    for name, now in beside.items():
        before = made_with.get(name)
        if before is None or now is None or (type(before) is type(now) and before == now):
            continue
        if "." not in name:  # a setting
            raise CheckpointError(f"{path} was trained with {name} {describe(before)}, the run has {describe(now)}")
        other = path.parent.parent / name if name == TEACHER else path.with_name(name)
        raise CheckpointError(f"{path} was trained with another {name} than {other}: they are of different models; "
                              "restore the one that was exchanged, or train again with train.py")


@torch.no_grad()
def _probe(model: AAND, teacher: Path, stage: Callable[[int], Path], size: int) -> None:
    """CheckpointError naming the file whose numbers, each of them finite, make none of an image."""
    images = model.normalise(torch.from_numpy(probe_image(size)).permute(2, 0, 1)[None])
    if all(tensor.isfinite().all() for tensor in model(images)):
        return
    for path, part in ((teacher, model.pretrained), (stage(1), model.teacher), (stage(2), model)):
        if not all(tensor.isfinite().all() for tensor in part(images)):
            raise CheckpointError(f"{path} makes NaN or infinite values of a plain image: its numbers are damaged; "
                                  "restore it, or delete it and train again with train.py")
