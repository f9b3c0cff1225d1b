"""Good photographs that are added to a trained category, without training it anew, and taken away again.

A model with a memory, of the robust recipe or PatchCore, learns them: memory and standardisation are made again of the
training images and of these, and the thresholds of the images that training has kept out. For any other model they are
further good images by which the thresholds are set. The student is as it was.

Each extension is kept in `checkpoints/<category>/extended/<number>`: the photographs, the files as they were before,
and extension.json.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.base import DataError
from datasets.files import image_files, paths_of
from datasets.problems import count
from models.aand import AAND
from models.patchcore import PatchCore
from models.tensor_files import read_file
from utils.data.image_store import ImageStore
from utils.detection.calibration import calibrate, digests_of
from utils.detection.prediction import load_predictor
from utils.detection.thresholds import HELD_OUT, Thresholds, read_thresholds, write_thresholds
from utils.runs.checkpoint import save_checkpoint
from utils.runs.folder import Run, RunCategory
from utils.system.errors import RunError, UsageError, command
from utils.system.files import write_text
from utils.training.config import TrainConfig
from utils.training.features import TeacherFeatures
from utils.training.fitting import fill, memory_features, remember, standardise
from utils.training.plan import Plan
from utils.training.resumable import ResumableStage

EXTENDED, RECORD, IMAGES = "extended", "extension.json", "images"
MOST_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Extension:
    """Thresholds before and after, if there are any, and the number of photographs that were added."""

    category: str
    added: int
    before: Thresholds | None
    after: Thresholds | None

    def __str__(self) -> str:
        said = f"{self.category}: {count(self.added, 'good photograph')} added"
        if self.before and self.after:
            said += f"; threshold {self.before.image_threshold:.6g} -> {self.after.image_threshold:.6g}"
        return said


def extend(run: Run, category: str, photographs: Sequence[Path], config: TrainConfig) -> Extension:
    """Add good photographs to a trained category of a run, whose settings `config` has.

    Raises UsageError for photographs that the category has already, RunError where the run's own images are not what
    they were, DataError for photographs that cannot be read. Nothing is written then.
    """
    files = run.category(category)
    before = read_thresholds(run.folder, category)
    data = OwnImages.of(config, files)
    new = data.without_known(photographs)
    model, _ = files.load_model()
    model = model.to(config.torch_device)
    learns = isinstance(model, PatchCore) or model.memory is not None
    if before and before.source != HELD_OUT:
        raise RunError(f"{files.thresholds} was set by images of which the run knows the scores alone: remove it, and "
                       "after this set thresholds anew with scripts/calibrate.py")
    if not before and not learns:
        raise UsageError(f"{category} has neither a memory nor thresholds, to which photographs could be added: "
                         f"{command('scripts/calibrate.py', run.folder, '--images', 'DIR')}")
    store = ImageStore(config.image_size, config.workers)
    view, added = files.view, [*earlier_photographs(files), *new]
    learnt = [*data.training, *added] if learns else []
    kept_out = [*data.kept_out] if learns else [*data.kept_out, *added]
    groups = {"learnt": learnt, "kept": kept_out}
    stacks = store.open({name: [image_files(paths, view)] for name, paths in groups.items()})
    folder = keep_state(files, new)
    if learns:
        relearn(model, stacks("learnt")[0], config, view.windows)
        save_stage2(files, model)
        files.keep_training_images(digests_of(new, config.workers).values())
    after = None
    if before:
        predictor, _, _ = load_predictor(files, config.torch_device, config.batch_size)
        batches = predictor.in_batches(kept_out, stacks("kept")[0])
        after = calibrate(predictor, batches, before.wanted_far, HELD_OUT, before.wanted_look)
        write_thresholds(run.folder, category, after)
    extension = Extension(category, len(new), before, after)
    record = {"made": datetime.now().isoformat(timespec="seconds"), "photographs": [path.name for path in new]}
    record |= {"threshold before": before and before.image_threshold, "after": after and after.image_threshold}
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return extension


def undo(run: Run, category: str) -> int:
    """Take away the photographs that were added last, and return how many these were. Raises RunError where none
    were."""
    files = run.category(category)
    numbers = extensions(files)
    if not numbers:
        raise RunError(f"no photographs were added to {category} in {run.folder}")
    folder = files.folder / EXTENDED / str(numbers[-1])
    photographs = len(list((folder / IMAGES).iterdir()))
    for path in state_files(files):
        if (folder / path.name).is_file():
            shutil.copy2(folder / path.name, path)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder)
    return photographs


@dataclass(frozen=True)
class OwnImages:
    """A category's own images as far as it was made of them: those of training, and those kept out of it."""

    training: Sequence[Path]
    kept_out: Sequence[Path]
    digests: Mapping[Path, str]  # of all, and of the test images
    added: set[str]  # digests of photographs that were added before

    @classmethod
    def of(cls, config: TrainConfig, files: RunCategory) -> OwnImages:
        """Look at the data set again. Raises RunError where its training images are not those of the training, or
        nobody knows which these were."""
        plan = Plan.of(config)
        split, images = plan.samples[files.name], plan.usable.images
        digests = {path: facts.digest for path, facts in images.items()}
        earlier = set(digests_of(earlier_photographs(files), config.workers).values())
        trained, now = files.training_images, {digests[path] for path in paths_of(split.train)}
        if trained is None or trained - earlier != now:
            raise RunError(f"the training images of {files.name} in {config.data_root} are not those that the run was "
                           "trained on; with other images, train anew")
        return cls(paths_of(split.train), paths_of(split.calibration), digests, earlier)

    def without_known(self, photographs: Sequence[Path]) -> list[Path]:
        """The photographs, copies left out. Raises UsageError for those that the category has already, DataError for
        those that cannot be read."""
        digests, known = digests_of(photographs, 1), set(self.digests.values()) | self.added
        if unread := [path for path, digest in digests.items() if not digest]:
            raise DataError(f"{count(len(unread), 'photograph')} cannot be read: {_named(unread)}")
        if same := [path for path, digest in digests.items() if digest in known]:
            raise UsageError(f"{count(len(same), 'photograph')} of the category's own data, or added before: "
                             f"{_named(same)}; give others")
        first: dict[str, Path] = {}
        for path, digest in digests.items():
            first.setdefault(digest, path)
        return list(first.values())


def relearn(model: AAND | PatchCore, images: Tensor, config: TrainConfig, windows: int) -> None:
    """Make memory and standardisation again of all images uint8 (N * windows, h, w, 3), training images and added
    ones."""
    stage = ResumableStage()
    if isinstance(model, PatchCore):
        fill(model, memory_features(model, images, config, windows), stage)
        return
    features = TeacherFeatures(
        model, images, batch_size=config.batch_size, seed=config.seed, execution=config.execution, windows=windows
    )
    with torch.no_grad():
        features.keep(config.cache_features, "ram", config.cache_dir)
        remember(model.memory, features, stage)
        standardise(model, features, config.execution)


def save_stage2(files: RunCategory, model: AAND | PatchCore) -> None:
    """Write the model's second stage, made with what it was made with."""
    path = files.stage(2)
    content: dict[str, Any] = read_file(path)
    parts = {name: part for name, part in model.stage_parts()[2].items() if name in content}
    save_checkpoint(path, parts, content["settings"], content["seconds"], files.name, content.get("made_with"))


def state_files(files: RunCategory) -> tuple[Path, ...]:
    """The files that an extension changes."""
    return files.stage(2), files.thresholds, files.training_images_file


def keep_state(files: RunCategory, photographs: Sequence[Path]) -> Path:
    """Keep the files as they are, and copies of the photographs, in a new folder, which is returned."""
    number = (extensions(files) or [0])[-1] + 1
    folder = files.folder / EXTENDED / str(number)
    making = folder.with_name(f"{number}.tmp")
    shutil.rmtree(making, ignore_errors=True)
    (making / IMAGES).mkdir(parents=True)
    for path in state_files(files):
        if path.is_file():
            shutil.copy2(path, making / path.name)
    for place, path in enumerate(photographs):
        shutil.copy2(path, making / IMAGES / f"{place:04}-{path.name}")
    making.rename(folder)
    return folder


def extensions(files: RunCategory) -> list[int]:
    """The numbers of the extensions that a category has, in their order."""
    return sorted(int(path.name) for path in (files.folder / EXTENDED).glob("*") if path.name.isdecimal())


def earlier_photographs(files: RunCategory) -> list[Path]:
    """The photographs of all extensions, in the order in which they were added."""
    folders = [files.folder / EXTENDED / str(number) / IMAGES for number in extensions(files)]
    return [path for folder in folders for path in sorted(folder.iterdir())]


def config_for(config: TrainConfig, run: Run, category: str) -> TrainConfig:
    """The settings of a run's own command for one of its categories and seeds, for this machine."""
    settings = run.settings
    own = {"data_root": Path(settings.data_root), "dataset": settings.dataset, "categories": [category]}
    return replace(config, **own, roi=None, aux_path="builtin", seed=settings.seed or 0, seeds=None, eval_every=0)


def _named(paths: Sequence[Path]) -> str:
    more = ", ..." if len(paths) > MOST_NAMED else ""
    return ", ".join(str(path) for path in paths[:MOST_NAMED]) + more
