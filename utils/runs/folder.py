"""A run folder: its settings, the files of each category, and how the newest one of a data set is found.

    run = Run(Path("runs/NAME"))                            # of one seed; nothing is read before it is asked for
    run.settings.image_size, run.config["lr"]               # config.json, read once
    model, seconds = run.category("bottle").load_model()

docs/usage.md lists its files. Beside these are .lock, held by the process that trains, and stage1.progress.pt of an
unfinished stage. A run of several seeds holds seed0/, seed1/, ..., a run folder each, and their common results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from datasets.levels import EARLIER_LEVELS, Levels
from datasets.plain_json import read_json, typed
from datasets.view import View
from models.recipes import METHODS, Recipe
from utils.data.facts import MADE_BY
from utils.runs.settings import CONFIG, TEACHER, VIEW, Settings, describe, read_config
from utils.system.errors import RunError
from utils.system.files import write_text

if TYPE_CHECKING:  # a run's files are found where there is no torch
    from models.aand import AAND

RESULTS = "results.json"
SEED_FOLDERS = "seed[0-9]*"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """A run folder of one seed."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """All settings; raises as `read_config`."""
        return read_config(self.folder)

    @cached_property
    def settings(self) -> Settings:
        """The settings that programs read; raises as `read_config`."""
        return typed(self.config, Settings)

    @property
    def recipe(self) -> Recipe:
        return METHODS[self.settings.method][self.settings.recipe]

    @property
    def teacher(self) -> Path:
        """The file of the teacher of all categories."""
        return self.folder / CHECKPOINTS / TEACHER

    def category(self, name: str) -> RunCategory:
        return RunCategory(self, name)


class TrainingImages(Struct):
    """The content of training_images.json; earlier ones do not say of which category they are."""

    digests: list[str]
    category: str | None = None
    made_by: Any = None


@dataclass(frozen=True)
class RunCategory:
    """The files of one category in a run."""

    run: Run
    name: str

    @property
    def folder(self) -> Path:
        return self.run.folder / CHECKPOINTS / self.name

    @property
    def teacher(self) -> Path:
        """The file of a teacher of its own, which only converted categories may have."""
        return self.folder / TEACHER

    def stage(self, number: int) -> Path:
        """The checkpoint of a finished stage."""
        return self.folder / f"stage{number}.pt"

    def progress(self, number: int) -> Path:
        """The file of an unfinished stage."""
        return self.folder / f"stage{number}.progress.pt"

    @property
    def thresholds(self) -> Path:
        return self.folder / "thresholds.json"

    @property
    def view_file(self) -> Path:
        return self.folder / VIEW

    @property
    def training_images_file(self) -> Path:
        return self.folder / "training_images.json"

    @property
    def is_trained(self) -> bool:
        """All is there that training leaves: the last stage, and thresholds where images were kept for them."""
        return self.stage(2).is_file() and (self.thresholds.is_file() or not self.run.settings.calibration)

    def remove_stale_progress(self) -> None:
        """Delete the progress of finished stages: a process may have been killed before it did."""
        for number in (1, 2):
            if self.stage(number).is_file():
                self.progress(number).unlink(missing_ok=True)

    @property
    def view(self) -> View:
        """The view that the model has of an image; RunError naming the file if it cannot be read. Runs of the published
        recipe had no such file before there were levels."""
        path = self.view_file
        if not path.exists() and not self.run.recipe.own_view:
            return View(levels=EARLIER_LEVELS)
        try:
            return View.from_dict(read_json(path))
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error})") from error

    def keep_view(self, view: View) -> None:
        """Write what the model is shown; RunError if a run that is resumed was shown something else. Views from before
        there were levels are those of any levels by which files are read as they were then."""
        if not self.view_file.is_file():
            write_text(self.view_file, json.dumps(asdict(view), indent=2) + "\n")
            return
        before = self.view
        same_levels = before.levels == view.levels or (before.levels == EARLIER_LEVELS and view.levels == Levels())
        if not same_levels or replace(before, levels=view.levels) != view:
            other = "the training images are not those" if before.region == view.region else "the `roi` is not the one"
            raise RunError(f"{self.view_file}: {other} that the run was started with; choose another `output`")

    @property
    def training_images(self) -> set[str] | None:
        """The digests of the training images; None where they are not known, or of what decodes otherwise.

        Raises RunError for a file that cannot be read, or is of another category.
        """
        path = self.training_images_file
        if not path.exists():
            return None
        try:
            content = typed(read_json(path), TrainingImages)
            if content.category not in (None, self.name):
                raise ValueError(f"it is of the category {describe(content.category)}")
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}); restore it, or delete it") from error
        return set(content.digests) if content.made_by == MADE_BY else None

    def keep_training_images(self, digests: Iterable[str]) -> None:
        """Add to the training images; a run that is resumed keeps those of before."""
        known = self.training_images or set()
        content = {"made_by": MADE_BY, "category": self.name, "digests": sorted(known | set(digests))}
        if known != set(content["digests"]):
            write_text(self.training_images_file, json.dumps(content, indent=1) + "\n")

    def load_model(self) -> tuple[AAND, float]:
        """The trained model in eval mode, and the seconds its training took.

        Raises CheckpointError if one of its files is missing, does not fit, or is of another model than the others, and
        if the model makes NaN of an image; RunError for a view that cannot be read.
        """
        from utils.runs.checkpoint import load_model

        teacher = self.teacher if self.teacher.is_file() else self.run.teacher
        view = self.view if self.view_file.is_file() else None
        return load_model(teacher, self.stage, self.name, self.run.config, view)


def seed_folder(folder: Path, seed: int) -> Path:
    """The folder of one seed in a run of several; RunError if `folder` is already the run of a single one."""
    if (folder / CONFIG).is_file():
        raise RunError(f"{folder} holds a run of a single seed; choose another `output` for several")
    return folder / f"seed{seed}"


def open_runs(folder: Path) -> list[Run]:
    """The runs in a folder, one a seed in the order of seeds: that of the folder itself if it is of a single seed.

    Raises RunError if there are none.
    """
    runs = [Run(path) for path in (folder, *list_seeds(folder)) if (path / CONFIG).is_file()]
    if not runs:
        raise RunError(
            f"{folder} is not a run folder of train.py: no {CONFIG} in it, and no seed0/, seed1/, ...; the public "
            "code's checkpoints become one with scripts/convert_checkpoint.py from_official"
        )
    return runs[:1] if runs[0].folder == folder else runs


def list_seeds(folder: Path) -> list[Path]:
    """The folders seed0/, seed1/, ... in a run, in the order of seeds; empty for a run of a single one."""
    seeds = [path for path in folder.glob(SEED_FOLDERS) if path.name[4:].isdecimal()]
    return sorted(seeds, key=lambda path: int(path.name[4:]))


def trained_categories(folder: Path) -> list[str]:
    """The categories of a run whose last stage is finished, for every one of its seeds; sorted."""
    stages = [run.folder.glob(f"{CHECKPOINTS}/*/stage2.pt") for run in open_runs(folder)]
    return sorted(set.intersection(*({path.parent.name for path in paths} for paths in stages)))


def newest_run(data_root: Path, folder: Path = Path("runs")) -> Path:
    """The run of the data set in `data_root` that was started last and has a trained category.

    One whose config.json cannot be read is passed over, and so are those of utils/runs/official.py, which go with the
    checkpoints that they were converted from. Raises RunError saying which runs there are if none fits.
    """
    fitting, others = [], []
    for path in (path for path in folder.glob("*") if path.is_dir()):
        try:
            config = open_runs(path)[0].config
        except RunError:
            continue
        if config["data_root"] != str(data_root.resolve()) or "checkpoints" in config:
            others.append(f"{path} (of {config['data_root']})")
        elif trained_categories(path):
            fitting.append((config["started"], path))
    if not fitting:
        there = f"; there are: {', '.join(sorted(others))}; choose one with `run`" if others else ""
        raise RunError(f"no trained run of {data_root} in {folder}/{there or '; train one with train.py'}")
    return max(fitting)[1]
