"""One category of a run: its data, and its stages one after the other, each with a checkpoint at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datasets.batches import epoch_batches
from datasets.view import WHOLE, View
from models.aand import AAND, build_model
from models.teacher import PretrainedTeacher
from utils.data.image_store import Stack
from utils.detection.calibration import calibrate
from utils.detection.pictures import beside_heat_maps
from utils.detection.prediction import Predictor, load_predictor
from utils.detection.test_set import TestSet
from utils.detection.thresholds import HELD_OUT, write_thresholds
from utils.runs.checkpoint import MadeWith, load_checkpoint, save_checkpoint, state_of
from utils.runs.folder import Run
from utils.runs.history import RunLog
from utils.system.errors import TrainingError, command, layout_flags
from utils.system.signals import stop_between_steps
from utils.training.config import TrainConfig
from utils.training.forecast import Forecast
from utils.training.norms import synchronise_norms
from utils.training.resumable import MADE_WITH, ResumableStage
from utils.training.steps import NonFiniteLoss

SHOWN = 8  # maps, of each category, for TensorBoard


@dataclass(frozen=True)
class TrainingSet:
    """The decoded data of a category: images uint8 (N * windows, h, w, 3), for Stage I with their foregrounds,
    (N * windows, h, w, 4), and textures uint8 (T, 3, h, w); the test set where its metrics are to be logged."""

    images: Stack
    paths: Sequence[Path]  # of the images
    textures: Stack | None = None
    made: int = 0  # foregrounds that had to be made on the fly
    view: View = WHOLE  # of what the images show
    test_set: TestSet | None = None
    calibration: Stack | None = None  # good images (M * windows, h, w, 3) kept out of training, as the view shows them
    calibration_paths: Sequence[Path] = ()

    @property
    def digest(self) -> str:
        """Names and sizes of the training images' files in their order, as one word."""
        listing = [f"{path.name} {path.stat().st_size}" for path in self.paths]
        return hashlib.sha256("\n".join(listing).encode(errors="surrogateescape")).hexdigest()[:16]


class Category:
    """A category that is trained, from the same seed as every other: its model, data, and stages in their order.

    pretrained: prepared for the config's execution; made_with: of `keep_teacher`; forecast: of the whole training.
    """

    def __init__(
        self, name: str, data: TrainingSet, pretrained: PretrainedTeacher, config: TrainConfig,
        settings: Mapping[str, Any], log: RunLog, made_with: MadeWith, forecast: Forecast,
    ):
        torch.manual_seed(config.seed)
        self.name, self.data, self.config, self.settings, self.log = name, data, config, settings, log
        self.forecast = forecast
        world = config.world
        self.files = Run(log.folder).category(name)
        world.broadcast(lambda: self.files.keep_view(data.view))
        view = world.together(lambda: self.files.view)
        self.made_with = {**made_with, self.files.view_file.name: view.word}
        self.model = new_model(pretrained, config)
        self.stage: ResumableStage | None = None  # under way
        self.stages = self._untrained()

    def _untrained(self) -> Iterator[ResumableStage]:
        """The stages without a checkpoint, from where they were left; each is saved when the next is asked for."""
        for number, parts in self.model.stage_parts().items():
            path = self.files.stage(number)
            if path.is_file():
                load_checkpoint(path, parts, self.settings, self.name, self.made_with)
                self.log.say(f"{self.name}: stage {number} already trained")
            else:
                with self._resumed(number, parts) as self.stage:
                    yield self.stage
                if self.config.world.is_first:
                    save_checkpoint(path, parts, self.settings, self.stage.seconds, self.name, self.made_with)
                self.stage.remove()
            self.made_with = {**self.made_with, path.name: state_of(parts)}

    @contextmanager
    def _resumed(self, number: int, parts: Mapping[str, nn.Module]) -> Iterator[ResumableStage]:
        identity = {"category": self.name, "stage": number, "training images": self.data.digest}
        identity |= {f"{MADE_WITH} {name}": now for name, now in self.made_with.items()}
        path, world, log = self.files.progress(number), self.config.world, self.log
        epochs = self.config.epochs_stage1 if number == 1 else self.config.epochs_stage2
        with stop_between_steps() as check:
            stage = ResumableStage(path, parts, identity, check, world, number)
            log.rewind(self.name, number, stage.epoch)  # what is trained again
            if stage.resumed:
                log.say(f"{self.name}: stage {number} goes on in epoch {stage.epoch}, step {stage.step + 1}")
            stage.say = lambda text: log.say(f"{self.name}: {text}")
            if number == 1 and self.data.made:
                layout = layout_flags(self.config.dataset, self.config.good, self.config.bad)
                where = ["--data_path", self.config.data_root, *layout]
                keep = f"{command('scripts/fore_extractor.py', *where, '--output', self.config.fg_root)} keeps them"
                stage.say(f"{self.data.made} of {len(self.data.paths)} foreground masks made on the fly ({keep})")
            steps = -(-len(self.data.images) // self.config.batch_size)
            with log.stage(self.name, number, epochs, stage.epoch, steps, stage.step) as stage.log:
                stage.tick = self._tick
                yield stage
            world.barrier()  # a process may not yet have looked for the files that are about to change

    @property
    def shown(self) -> int:
        """The images that the stage under way has shown to its model, in all its epochs."""
        images = len(self.data.images)
        return (self.stage.epoch - 1) * images + min(self.stage.step * self.config.batch_size, images)

    def _tick(self) -> None:
        """Move the bar by a step, and say how long the training takes where that is known now."""
        self.stage.log.tick()
        if self.config.world.is_first:
            before = (self.stage.step - 1) * self.config.batch_size
            images = min(self.config.batch_size, len(self.data.images) - before)
            if line := self.forecast.tick(self.stage, images):
                self.log.say(line)

    def describe(self, error: NonFiniteLoss) -> TrainingError:
        """The error of a loss that is no number, with the images of its step."""
        config, stage = self.config, self.stage
        batches = list(epoch_batches(len(self.data.images), config.batch_size, config.seed, stage.epoch))
        places = batches[error.step] // self.data.view.windows
        images = [str(self.data.paths[place]) for place in places.unique(sorted=False).tolist()]
        return TrainingError(
            f"{self.name}: the loss of stage {stage.number} became {error.value} in epoch {stage.epoch}, step "
            f"{error.step + 1}; a lower `lr` or `precision` fp32 may help. What was saved before is kept. The images "
            "of this step:",
            *images,
        )

    def finish(self) -> None:
        """Set the thresholds, and show some maps where TensorBoard is written for."""
        self.set_thresholds()
        if self.log.board:
            self.show_maps()

    def show_maps(self) -> None:
        """Show maps of images spread over the test set, those kept out of training, or those of training."""
        config, data = self.config, self.data
        kept = data.test_set.images if data.test_set else data.images if data.calibration is None else data.calibration
        places = np.unique(np.linspace(0, len(kept) - 1, SHOWN).round().astype(int))
        images = np.stack([np.asarray(kept[place : place + 1])[0, ..., :3] for place in places.tolist()])
        predictor = Predictor.of(self.model, config.image_size, batch_size=config.batch_size)
        self.log.show(self.name, 2, config.epochs_stage2, beside_heat_maps(predictor, images))

    def set_thresholds(self) -> None:
        """Set the thresholds by the images kept out of training, if any, with the model as its files have it."""
        if not self.config.calibration or not self.config.world.is_first:
            return
        config, data = self.config, self.data
        predictor, _, _ = load_predictor(self.files, self.model.device, config.batch_size)
        batches = predictor.in_batches(data.calibration_paths, data.calibration)
        thresholds = calibrate(predictor, batches, config.far, HELD_OUT, config.look or None)
        write_thresholds(self.log.folder, self.name, thresholds)
        self.log.say(f"{self.name}: {thresholds}")


def new_model(pretrained: PretrainedTeacher, config: TrainConfig) -> AAND:
    """An untrained model, ready for training, with a teacher that is prepared for the config's execution."""
    model = build_model(pretrained, config.traits).to(pretrained.device)
    if config.sync_norms:
        for part in model.student_parts:
            synchronise_norms(part, config.world)
    config.execution.prepare(model)
    return model
