"""The settings of a run as its config.json keeps them: those that programs read, and what may differ when resuming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from datasets import DATASETS, DataSource, open_dataset
from datasets.plain_json import read_json, typed
from models import MAX_IMAGE_SIZE
from models.recipes import METHODS, RECIPES
from utils.system.errors import RunError

CONFIG, TEACHER, VIEW = "config.json", "teacher.pt", "view.json"  # names of files in a run
# What may differ when a run is resumed:
FREE_SETTINGS = (
    "categories", "device", "workers", "eval_every", "started", "command", "code", "environment", "processes",
    "holdout",  # of earlier versions: means nothing but with "select"
)
# Flags of train.py that config.json does not keep, because they change no result (time_limit: but by the epochs):
NOT_SETTINGS = (
    "output", "resume", "fg_root", "seeds", "cache", "cache_dir", "cache_features", "skip_bad", "tensorboard",
    "time_limit",
)
# What config.json keeps beside flags of train.py:
RECORDED = (
    "command", "started", "code", "environment", "processes", "skipped", "planned_from", "select", "holdout",
    "checkpoints",
)
PLANNED = ("epochs_stage1", "epochs_stage2")  # by "planned_from", what was asked for, where there was a time limit
LAST_EPOCH, RATED_EPOCH = "last", "synthetic"  # "select" of earlier versions: which epoch is the result
OFFICIAL = "official checkpoint"  # "weights" of a run that was made of the public code's
# Settings of runs from before there were these:
EARLIER = {
    "recipe": "published", "select": LAST_EPOCH, "calibration": 0.0, "far": 0.01, "skipped": {}, "deterministic": False,
    "sync_norms": False, "processes": 1, "white_level": None, "good": [], "bad": [], "look": 0.0,
    "tiles": 1, "roi": None,
}

Count = Annotated[int, Meta(ge=1)]
Side = Annotated[int, Meta(ge=32, le=MAX_IMAGE_SIZE, multiple_of=32)]
StoredSize = Side | Annotated[list[Side], Meta(min_length=2, max_length=2)]  # a tuple crashes msgspec 0.22 here


class Code(Struct, frozen=True):
    """The commit of the code, and whether it was changed; both are absent where there was no repository."""

    commit: str | UnsetType = UNSET
    changed: bool | UnsetType = UNSET

    def __post_init__(self):
        if (self.commit is UNSET) != (self.changed is UNSET):
            raise ValueError("a commit, and whether it was changed, go together")


class Settings(Struct, frozen=True):
    """The settings that programs read; config.json has others, of any kind."""

    method: Literal[tuple(METHODS)]
    backbone: str
    image_size: StoredSize  # pixels: of a square, or height, width
    dataset: Literal[tuple(DATASETS)]
    data_root: str
    command: str
    started: str
    recipe: Literal[tuple(RECIPES)]
    select: Literal[LAST_EPOCH, RATED_EPOCH]
    stated_seed: Annotated[int, Meta(ge=0)] | UnsetType = field(name="seed", default=UNSET)
    epochs_stage1: Count | UnsetType = UNSET
    epochs_stage2: Count | UnsetType = UNSET
    aux_path: str | None = None
    good: list[str] = []
    bad: list[str] = []
    code: Code | None = None
    weights: Any = None
    calibration: Any = 0.0

    @property
    def seed(self) -> int | None:
        """The seed; None for a run that does not say."""
        return None if self.stated_seed is UNSET else self.stated_seed

    def open_data(self, categories: Sequence[str] | None = None, root: Path | None = None) -> DataSource:
        """The data set of the run, where it was or in `root`. Raises DataError as `open_dataset` does."""
        return open_dataset(root or self.data_root, self.dataset, categories, self.good, self.bad)


def read_config(folder: Path) -> dict[str, Any]:
    """All settings of a run; RunError if there are none, one that every run has is missing, or one that programs read
    is of another kind."""
    try:
        config = EARLIER | typed(read_json(folder / CONFIG), dict)
        typed(config, Settings)
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} is not a run folder of train.py: {CONFIG} cannot be used ({error})") from error
    return config


def refuse_rated(run: Path, settings: Mapping[str, Any]) -> None:
    """RunError for a run of an earlier version whose result is an epoch chosen on synthetic anomalies."""
    if settings["select"] == RATED_EPOCH:
        raise RunError(f"{run} was started with --select synthetic, which train.py no longer has: it can be scored and "
                       "used, but not resumed; choose another `output`")


def setting_differences(before: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Differences in settings that forbid resuming, one line each. Epochs that were planned from what is asked for now
    are none."""
    settings = EARLIER | settings
    planned_from = settings.get("planned_from")
    free = (*FREE_SETTINGS, *PLANNED) if planned_from and planned_from == before.get("planned_from") else FREE_SETTINGS
    names = [name for name in {**before, **settings} if name not in free]
    return [f"{n}: {before.get(n)} -> {settings.get(n)}" for n in names if before.get(n) != settings.get(n)]


def describe(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
