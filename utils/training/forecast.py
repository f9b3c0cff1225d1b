"""How long a training still takes, by the seconds that an image took in its first steps. Nothing is drawn or changed.

    forecast = Forecast("resnet18", device, lambda: [run.images_left() for run in seeds])
    line = forecast.tick(stage, images)         # after every step; once or twice in a training a line to say

What takes no steps is not in it: features, memories and thresholds, test metrics, saving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from datasets.problems import count
from utils.system.device import synchronise
from utils.training.resumable import ResumableStage

WARM_UP, STEPS = 2, 8  # first steps of a stage, which are slow and left out, and those that are measured
TOLERATED = 0.25  # share by which an estimate may be wrong before it is said again
# Seconds of an image in Stage II for one in Stage I, until both are measured, as docs/performance.md has them:
STAGE2_RATIO, STAGE2_RATIO_LITE = 1.6, 0.5

ImagesLeft = Mapping[str, Mapping[int, int]]  # that a seed has still to show, by category and stage


class StepTimer:
    """The seconds that an image takes in a stage: the median over STEPS steps after the first WARM_UP."""

    def __init__(self, device: torch.device):
        self.device, self.steps, self.last = device, 0, 0.0
        self.paces: list[float] = []  # seconds an image, of the steps that count

    @property
    def is_done(self) -> bool:
        return len(self.paces) == STEPS

    @property
    def seconds(self) -> float:
        return median(self.paces)

    def tick(self, images: int) -> None:
        """Count a step of so many images that has just ended."""
        if self.is_done:
            return
        synchronise(self.device)
        now = time.perf_counter()
        self.steps += 1
        if self.steps > WARM_UP:
            self.paces.append((now - self.last) / images)
        self.last = now


class Forecast:
    """Predict what is left of a training once its first stage has taken a few steps, and again once the other has, if
    that is more than TOLERATED away.

    left: gives what each seed has still to do. paces: seconds of an image by stage, where they are known before.
    """

    def __init__(
        self, backbone: str, device: torch.device, left: Callable[[], Sequence[ImagesLeft]],
        paces: Mapping[int, float] | None = None,
    ):
        lite = backbone.startswith("efficientnet_lite")
        self.ratio = STAGE2_RATIO_LITE if lite else STAGE2_RATIO
        self.device, self.left = device, left
        self.paces, self.measured = dict(paces or {}), set()
        self.stage, self.timer = None, StepTimer(device)

    def tick(self, stage: ResumableStage, images: int) -> str | None:
        """Count a step of so many images that a stage has just taken; returns the line that is to be said now."""
        if stage.number in self.measured:
            return None
        if stage is not self.stage:
            self.stage, self.timer = stage, StepTimer(self.device)
        self.timer.tick(images)
        if not self.timer.is_done:
            return None
        first, left = not self.measured, self.left()
        before = None if first else self.seconds(left)
        self.measured.add(stage.number)
        self.paces[stage.number] = self.timer.seconds
        now = self.seconds(left)
        if not first and abs(now - before) <= TOLERATED * before:
            return None
        steps = "its first steps" if first else f"the first steps of stage {stage.number} too"
        return f"about {roughly(now)} for this training ({describe(left)}), measured on {steps}"

    def seconds(self, left: Sequence[ImagesLeft]) -> float:
        """The seconds of the steps that are left; the pace of a stage that is not known follows from the other's."""
        paces = dict(self.paces)
        paces.setdefault(1, paces.get(2, 0.0) / self.ratio)
        paces.setdefault(2, paces[1] * self.ratio)
        stages = [stage for seed in left for category in seed.values() for stage in category.items()]
        return sum(images * paces[number] for number, images in stages)


def describe(left: Sequence[ImagesLeft]) -> str:
    """What is left in words: "2 categories, 3 seeds"."""
    categories, seeds = len({name for seed in left for name in seed}), sum(map(bool, left))
    words = "1 category" if categories == 1 else f"{categories} categories"
    return f"{words}, {count(seeds, 'seed')}" if seeds > 1 else words


def roughly(seconds: float) -> str:
    """Seconds in words, as exact as an estimate: "40 s", "6 min", "2 h 20 min", "3 days 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{count(days, 'day')} {hours} h"
