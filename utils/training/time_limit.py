"""Epochs that fit into a time: a few steps of both stages are tried on a model that is then dropped.

What is tried is the first category, with its images, and with the parts around the steps in full: features, memory,
standardisation, test metrics. Of other categories all is in proportion to their images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from models.recipes import LEAST_EPOCHS
from models.teacher import build_teacher
from utils.system.device import synchronise
from utils.system.errors import TrainingError, as_flags
from utils.system.memory import release_freed_memory
from utils.training.category import TrainingSet, new_model
from utils.training.config import TrainConfig
from utils.training.forecast import STEPS, WARM_UP, StepTimer, roughly
from utils.training.plan import Plan
from utils.training.resumable import ResumableStage
from utils.training.stages import train_stage1, train_stage2
from utils.training.steps import NonFiniteLoss

TRIED = WARM_UP + STEPS  # steps of a stage
RESERVE = 0.1  # of the time, for what is not tried: thresholds, saving, a machine that has other work to do

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Cost:
    """Seconds of a stage: of an image in its steps, of all that is around the steps, and of this what is repeated each
    time the test set is scored."""

    image: float
    around: float
    test: float = 0.0


class Trial(ResumableStage):
    """A stage that takes few steps and leaves their times alone."""

    def __init__(self, number: int, images: int, config: TrainConfig):
        super().__init__(world=config.world, number=number)
        self.images, self.batch_size = images, config.batch_size
        self.timer, self.shown, self.ticked, self.test = StepTimer(config.torch_device), 0, 0.0, 0.0
        self.tick, self.log = self._tick, self._log

    @property
    def needed_epochs(self) -> int:
        """The epochs in which TRIED steps are taken."""
        return -(-TRIED // -(-self.images // self.batch_size))

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return super().steps(islice(batches, TRIED))

    def _tick(self) -> None:
        images = min(self.batch_size, self.images - (self.step - 1) * self.batch_size)
        self.timer.tick(images)
        self.shown += images
        self.ticked = time.perf_counter()

    def _log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.test = time.perf_counter() - self.ticked

    def measured(self) -> Cost:
        """What the stage has cost, now that it has ended."""
        synchronise(self.timer.device)
        return Cost(self.timer.seconds, max(0.0, self.seconds - self.timer.seconds * self.shown), self.test)


def within_limit(plan: Plan, read: Callable[[str], TrainingSet], started: float) -> tuple[Plan, dict[int, float]]:
    """The plan with the epochs that fit into its time limit, and the seconds of an image by stage; stderr says them.

    read: gives the data of a category. started: when the program's work began, by `time.perf_counter`. Raises
    TrainingError where not even a trial is possible.
    """
    config, [name, *_] = plan.config, plan.samples
    costs = try_stages(name, read(name), config)
    release_freed_memory()
    images = len(config.seeds or [config.seed]) * sum(len(split.train) for split in plan.samples.values())
    times = images / len(plan.samples[name].train)  # the whole training is so many times the first category
    images *= config.windows
    around = times * sum(cost.around for cost in costs.values())
    epoch = {stage: images * cost.image for stage, cost in costs.items()}
    if config.eval_every:
        epoch[2] += times * costs[2].test / config.eval_every
    spent = time.perf_counter() - started
    fitting = fitting_epochs(config, epoch, config.time_limit * 60 * (1 - RESERVE) - spent - around)
    epochs = config.world.broadcast(lambda: fitting)
    needed = spent + around + sum(epochs[stage] * seconds for stage, seconds in epoch.items())
    print(as_flags(describe(config, epochs, epoch, needed)), file=sys.stderr)
    planned = replace(config, epochs_stage1=epochs[1], epochs_stage2=epochs[2])
    return replace(plan, config=planned), {stage: cost.image for stage, cost in costs.items()}


def fitting_epochs(config: TrainConfig, epoch: Mapping[int, float], seconds: float) -> dict[int, int]:
    """The epochs by stage: one share of all that are asked for, as large as the seconds allow, but LEAST_EPOCHS at
    least.

    epoch: seconds of an epoch of each stage that there is.
    """
    asked = {1: config.epochs_stage1, 2: config.epochs_stage2}
    share = max(0.0, seconds) / sum(asked[number] * of_one for number, of_one in epoch.items())
    return {number: min(most, max(LEAST_EPOCHS, int(share * most))) for number, most in asked.items()}


def describe(config: TrainConfig, epochs: Mapping[int, int], stages: Iterable[int], needed: float) -> str:
    """The epochs of these stages and their time in words; a warning where it is longer than the limit."""
    asked = {1: config.epochs_stage1, 2: config.epochs_stage2}
    planned, most = (" + ".join(str(by_stage[stage]) for stage in stages) for by_stage in (epochs, asked))
    limit = f"`time_limit` {config.time_limit:g}"
    if needed > config.time_limit * 60:
        return (f"warning: {limit} is too short: the least, {planned} epochs, take about {roughly(needed)} in all; "
                "fewer `categories`, a smaller `image_size` or another `backbone` take less")
    return f"{limit}: {planned} of {most} epochs, about {roughly(needed)} in all"


def try_stages(name: str, data: TrainingSet, config: TrainConfig) -> dict[int, Cost]:
    """What the stages of a category cost, by their numbers. Raises TrainingError for a loss that is no number."""
    teacher = build_teacher(config.backbone, config.weights).to(config.torch_device)
    config.execution.prepare_teacher(teacher)
    model, costs = new_model(teacher, config), {}
    for number in model.stage_parts():
        trial = Trial(number, len(data.images), config)
        epochs = trial.needed_epochs
        few = replace(config, epochs_stage1=epochs, epochs_stage2=epochs, eval_every=config.eval_every and epochs)
        try:
            (train_stage1 if number == 1 else train_stage2)(model, data, few, trial)
        except NonFiniteLoss as error:
            raise TrainingError(f"{name}: in a trial of stage {number} for `time_limit` the loss became {error.value}; "
                                "a lower `lr` or `precision` fp32 may help") from error
        costs[number] = trial.measured()
    return costs
