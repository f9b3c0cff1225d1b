"""The settings of a training: what train.py's flags say, built once and never changed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from datasets.sizes import Size, height_width
from models.recipes import METHODS, Recipe, epochs_for
from utils.detection.rates import check_look, suitable_look, suitable_rates
from utils.runs.board import require_board
from utils.runs.settings import NOT_SETTINGS
from utils.system.device import pick_device, resolve_precision
from utils.system.errors import UsageError
from utils.system.memory import keep_freed_memory
from utils.system.processes import ALONE, World, own_device
from utils.training.execution import PLAIN, Execution

NOT_FLAGS = ("command", "torch_device", "world")


@dataclass(frozen=True)
class TrainConfig:
    """A field for each flag of train.py, named and meant as docs/commands.md says, and what they come to here.

    `resolve` gives "auto" way to what it means on this machine, and fills the last two fields.
    """

    data_root: Path
    aux_path: str | None = None
    dataset: str = "auto"
    good: Sequence[str] = ()  # names of folders
    bad: Sequence[str] = ()
    categories: Sequence[str] | None = None
    method: str = "aand"
    recipe: str = "published"
    backbone: str = "wide_resnet50_2"
    weights: str = "default"
    image_size: Size = 256  # pixels: of a square, or height and width
    tiles: Size = 1  # windows that an image is shown in: rows and columns
    roi: Path | None = None  # region of interest: a file, or a folder of one for each category
    batch_size: int = 16  # images, of all processes together
    epochs_stage1: int | None = 100  # None, here and below: what suits the number of images (`fit`)
    epochs_stage2: int | None = 120
    time_limit: float | None = None  # minutes of the whole training, by which fewer epochs are planned
    lr: float = 0.005
    seed: int = 0
    seeds: Sequence[int] | None = None
    precision: str = "auto"
    cache_features: str = "auto"
    compile: bool = False
    sync_norms: bool = False
    deterministic: bool = False
    plain: bool = False
    calibration: float | None = 0.0  # share of the training images
    far: float | None = 0.01  # share of good images
    look: float | None = 0.0  # the same; 0: none
    eval_every: int = 0  # epochs
    white_level: float | None = None
    tensorboard: bool = False
    device: str = "auto"
    fg_root: Path = Path("fg_mask")
    output: Path | None = None
    cache: str = "ram"
    cache_dir: Path = Path("cache")
    workers: int = 1
    skip_bad: bool = False
    command: str = ""  # command line of the program, as config.json keeps it
    torch_device: torch.device = torch.device("cpu")
    world: World = ALONE  # processes that train together

    @property
    def traits(self) -> Recipe:
        return METHODS[self.method][self.recipe]

    @property
    def windows(self) -> int:
        """The number of windows that an image is shown in."""
        return math.prod(height_width(self.tiles))

    @property
    def execution(self) -> Execution:
        """Number format and layout of the computation; `plain` has nothing of what makes it fast."""
        if self.plain:
            return replace(PLAIN, world=self.world)
        return Execution(self.precision, compile=self.compile, world=self.world)

    def resolve(self, world: World) -> TrainConfig:
        """The same for this process on this machine. Raises UsageError for values that do not go together."""
        if self.recipe not in METHODS[self.method]:
            there = ", ".join(METHODS[self.method])
            raise UsageError(f"`recipe` {self.recipe}: `method` {self.method} has {there} alone")
        if self.seeds and len(set(self.seeds)) < len(self.seeds):
            raise UsageError(f"`seeds` {' '.join(map(str, self.seeds))}: each seed only once")
        check_look(self.far, self.look)
        if self.tensorboard:
            require_board()
        device = pick_device(own_device(self.device, world))
        if self.deterministic and device.type == "cuda":  # on a CPU all is deterministic
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        changes: dict[str, Any] = {"torch_device": device, "world": world}
        _, changes["epochs_stage2"] = self.traits.epochs(self.epochs_stage1, self.epochs_stage2)
        if self.plain:
            changes |= {"precision": "fp32", "cache": "none", "cache_features": "off", "compile": False}
        else:
            keep_freed_memory()
            changes["precision"] = resolve_precision(self.precision, device)
        return replace(self, **changes)

    def fit(self, images: int) -> TrainConfig:
        """The same with what suits so many good images, where that was asked for."""
        calibration, far = suitable_rates(images, self.calibration, self.far)
        epochs = epochs_for(images * self.windows)
        return replace(
            self, epochs_stage1=self.epochs_stage1 or epochs, epochs_stage2=self.epochs_stage2 or epochs,
            calibration=calibration, far=far, look=suitable_look(far) if self.look is None else self.look,
        )

    def settings(self) -> dict[str, Any]:
        """The flags that config.json keeps, by name."""
        flags = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {name: value for name, value in flags.items() if name not in (*NOT_SETTINGS, *NOT_FLAGS)}
        return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    """A value as it is read again from JSON."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
