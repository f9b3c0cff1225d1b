"""Training steps as the trainer makes them, on generated images, for the benchmarks to time, count and compare."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.batches import SyntheticAnomalies
from models.aand import build_model
from models.teacher import build_teacher
from utils.cli import at_least, image_size
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.stages import AMPLIFY_WEIGHT, stage1_losses, stage2_loss
from utils.training.steps import Optimizer

LR = 0.005


def add_step_flags(parser: argparse.ArgumentParser) -> None:
    """What a step is of: --image_size and --batch_size."""
    parser.add_argument("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    parser.add_argument("--batch_size", type=at_least(1), default=16, metavar="N", help="images (default 16)")


def make_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth colour patterns with noise and a foreground of ones: uint8 (N, S, S, 4)."""
    rng = np.random.default_rng(seed)
    place = np.linspace(0, 2 * np.pi, size)
    waves = np.sin(rng.integers(1, 9, (count, 1, 1, 3)) * place[:, None, None] + rng.integers(1, 9, 3) * place[:, None])
    pixels = 128 + 80 * waves + rng.normal(0, 8, (count, size, size, 3))
    foreground = np.ones((count, size, size, 1))
    return torch.from_numpy(np.concatenate([pixels.clip(0, 255), foreground], axis=-1).astype(np.uint8))


class Trainer:
    """A model with random weights and one batch of images: what a step of each stage, and its parts, are."""

    def __init__(self, backbone: str, size: int, batch: int, execution: Execution, device: torch.device, keep: bool):
        torch.manual_seed(0)
        self.execution, self.batch, self.device = execution, batch, device
        teacher = build_teacher(backbone, "random").to(device)
        execution.prepare_teacher(teacher)
        self.model = build_model(teacher).to(device)
        execution.prepare(self.model)
        images = make_images(batch, size)
        textures = make_images(16, size, seed=1)[..., :3].permute(0, 3, 1, 2).contiguous()
        self.anomalies = SyntheticAnomalies(images, textures, batch_size=batch, seed=0, device=device)
        self.features = TeacherFeatures(self.model, images, batch_size=batch, seed=0, execution=execution)
        if keep:
            self.features.keep("on", "ram", Path())
        self.generator = torch.Generator().manual_seed(0)
        self.first = self._optimizer(self.model.teacher.amplification)
        self.second = self._optimizer(*self.model.student_parts)
        self.epoch = 0

    def _optimizer(self, *modules: nn.Module) -> Optimizer:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return Optimizer(parameters, LR, self.execution, self.device)

    def stage1_data(self) -> tuple[Tensor, Tensor, Tensor]:
        """The batch with new anomalies."""
        self.epoch += 1
        return next(self.anomalies.epoch(self.epoch))

    def stage1(self) -> None:
        focal, amplify, _ = stage1_losses(
            self.model.teacher, *self.stage1_data(), self.generator, self.execution
        )
        self.first.step(focal + AMPLIFY_WEIGHT * amplify)

    def stage2_data(self) -> list[Tensor]:
        """The teacher's features of the batch."""
        return next(self.features.epoch(1))

    def stage2(self) -> None:
        self.second.step(stage2_loss(self.model.train(), self.stage2_data(), True, self.execution))


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call, sorted: one warm-up, then all calls in turn, so that the machine's drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(1 + repetitions):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return {name: sorted(taken) for name, taken in seconds.items()}


def median(seconds: list[float]) -> float:
    return float(np.median(seconds))
