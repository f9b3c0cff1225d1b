"""The two training stages and the prediction of anomaly maps.

A stage trains its model in place and calls `on_epoch(epoch, figures)` after each epoch, `figures` being plain floats.

With several processes (`execution.world`) each works on its share of a batch. Means over images and over positions are
those of the whole batch, an image's hardest positions are its own; but each process draws the pairs of the
amplification loss from its share alone, and this loss is the mean over the processes' ones, weighted by their images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from datasets.loading import SyntheticAnomalies, epoch_seed
from models.aand import AAND
from models.amplification import AmplifiedTeacher
from models.calibration import residuals
from models.losses import (
    amplification_loss,
    draw_positions,
    flattened_cosine_loss,
    gate_counts,
    gate_focal_loss,
    hard_distillation_loss,
    level_mask,
)
from models.similarity import compare_features
from utils.average import Average
from utils.distributed import ALONE, World
from utils.execution import Execution, Optimizer
from utils.features import TeacherFeatures
from utils.norms import running_statistics
from utils.progress import GeneratorState, Progress
from utils.recipes import LR_FACTOR, PUBLISHED, Recipe

ADAM_BETAS = (0.5, 0.999)
AMPLIFY_WEIGHT = 0.1

OnEpoch = Callable[[int, dict[str, float]], None]


def train_stage1(
    teacher: AmplifiedTeacher,
    anomalies: SyntheticAnomalies,
    *,
    epochs: int,
    lr: float,
    seed: int,
    execution: Execution,
    on_epoch: OnEpoch,
    progress: Progress | None = None,
) -> None:
    """Train the amplification on synthetic anomalies, from where `progress` is.

    Raises NonFiniteLoss at the end of an epoch in which the loss became NaN or infinite.
    """
    progress = progress or Progress()
    device, world = teacher.pretrained.mean.device, execution.world
    optimizer = Optimizer(teacher.amplification.parameters(), lr, ADAM_BETAS, execution, device)
    scheduler = MultiStepLR(optimizer.adam, PUBLISHED.milestones(epochs), LR_FACTOR)
    generator, figures = torch.Generator(), Average()
    progress.track(optimizer=optimizer, scheduler=scheduler, generator=GeneratorState(generator), figures=figures)
    for epoch in progress.epochs(epochs):
        if progress.step == 0:
            generator.manual_seed(epoch_seed(seed, epoch))
        for images, masks, foregrounds in progress.steps(anomalies.epoch(epoch)):
            if world.size > 1:  # positions are of the share; and only the first process's generator is kept
                generator.manual_seed(epoch_seed(seed, epoch, progress.step, world.rank))
            focal, amplify, counts = stage1_losses(teacher, images, masks, foregrounds, generator, execution)
            loss = focal + AMPLIFY_WEIGHT * amplify
            whole = world.total(len(images))
            weight = len(images) / whole
            optimizer.step(loss, weight)
            figures.add(whole, **world.means(weight, loss=loss, focal=focal, amplify=amplify))
            figures.count(world.sum(counts))
        means = figures.finish()
        scheduler.step()
        on_epoch(epoch, means)


def stage1_losses(
    teacher: AmplifiedTeacher,
    images: Tensor,
    masks: Tensor,
    foregrounds: Tensor,
    generator: torch.Generator,
    execution: Execution,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over levels of the focal and the amplification loss, and the gate's counts (levels, 3).

    images: uint8 (N, 3, S, S); masks, foregrounds: (N, 1, S, S) of 0/1; all on the teacher's device.
    """
    inputs = teacher.pretrained.normalise(images).contiguous(memory_format=execution.memory_format)
    with execution.autocast(inputs.device):
        features = teacher.pretrained(inputs)
    focal = amplify = inputs.new_zeros(())
    counts = []
    for level, amplification in zip(features, teacher.amplification, strict=True):
        mask, foreground = (level_mask(whole, level.shape[-2:]) for whole in (masks, foregrounds))
        normal, anomalous = draw_positions(mask, foreground, generator)
        vectors = level.permute(0, 2, 3, 1).flatten(0, 2)  # (N*H*W, C)
        before = vectors[anomalous]  # (Q, C)
        with execution.autocast(inputs.device):
            gate = amplification.gate(level)
            amplified = amplification.amplify_anomalies(before)
        focal = focal + gate_focal_loss(gate, mask)
        amplify = amplify + amplification_loss(vectors[normal], before, amplified)
        counts.append(gate_counts(gate, mask))
    return focal, amplify, torch.stack(counts)


def train_stage2(
    model: AAND,
    features: TeacherFeatures,
    *,
    epochs: int,
    lr: float,
    execution: Execution,
    on_epoch: OnEpoch,
    recipe: Recipe = PUBLISHED,
    progress: Progress | None = None,
) -> None:
    """Train the student to rebuild the teacher's features of good images, from where `progress` is.

    Raises NonFiniteLoss at the end of an epoch in which the loss became NaN or infinite.
    """
    progress = progress or Progress()
    device, world = model.pretrained.mean.device, execution.world
    parameters = [*model.bottleneck.parameters(), *model.decoder.parameters()]
    statistics = running_statistics(model.bottleneck, model.decoder)
    optimizer = Optimizer(parameters, lr, ADAM_BETAS, execution, device, statistics)
    scheduler = MultiStepLR(optimizer.adam, recipe.milestones(epochs), LR_FACTOR)
    figures = Average()
    progress.track(optimizer=optimizer, scheduler=scheduler, figures=figures)
    for epoch in progress.epochs(epochs):
        model.train()
        for teacher_features in progress.steps(features.epoch(epoch)):
            loss = stage2_loss(model, teacher_features, recipe.hard_positions, execution)
            whole = world.total(len(teacher_features[0]))
            weight = len(teacher_features[0]) / whole
            optimizer.step(loss, weight)
            figures.add(whole, **world.means(weight, loss=loss))
        means = figures.finish()
        scheduler.step()
        model.eval()
        on_epoch(epoch, means)


def stage2_loss(
    model: AAND, teacher_features: list[Tensor], hard_positions: bool, execution: Execution
) -> Tensor:
    """Sum over levels of the distillation losses between the teacher's features and what the student makes of them."""
    with execution.autocast(teacher_features[0].device):
        student_features = model.student(teacher_features)
    loss = teacher_features[0].new_zeros((), dtype=torch.float32)
    for teacher, rebuilt in zip(teacher_features, student_features, strict=True):
        similarity = compare_features(teacher, rebuilt)
        loss = loss + flattened_cosine_loss(similarity)
        if hard_positions:
            loss = loss + hard_distillation_loss(similarity)
    return loss


@torch.no_grad()
def calibrate(model: AAND, features: TeacherFeatures, execution: Execution) -> None:
    """Set the model's calibration to what its residuals and then their distances are on the training images."""
    calibration = model.calibration
    model.eval()

    def student_features() -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        for teacher_features in features.epoch(1):
            with execution.autocast(teacher_features[0].device):
                yield teacher_features, model.student(teacher_features)

    def mean(values: Iterator[list[Tensor]]) -> list[Tensor]:
        """Of each level's values (N, ..., H, W) over images and positions, in float64."""
        count, sums = 0, None
        for levels in values:
            totals = [level.flatten(-2).mean(dim=-1).double().sum(dim=0) for level in levels]
            sums = totals if sums is None else [a + b for a, b in zip(sums, totals, strict=True)]
            count += len(levels[0])
        execution.world.sum_all(sums)
        count = execution.world.total(count)
        return [total / count for total in sums]

    calibration.reset()
    offsets = mean([residuals(*pair) for pair in zip(*both, strict=True)] for both in student_features())
    for offset, found in zip(calibration.offsets, offsets, strict=True):
        offset.copy_(found)
    moments = mean(
        [torch.stack([d, d.square()], dim=1) for d in calibration(*both)] for both in student_features()
    )  # (2,) each
    first, second = torch.stack(moments).unbind(1)  # (levels,) each
    calibration.set_scale(first, (second - first**2).clamp_min(0).sqrt())


@torch.inference_mode()
def predict_maps(
    model: AAND, images: Tensor, batch_size: int, world: World = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly maps float32 (N, S, S) and scores (N,) of uint8 images (N, S, S, 3), or what is sliced like them.

    Several processes share the batches, which are those of a single one, and each gets all maps.
    """
    model.eval()
    starts = range(0, len(images), batch_size)

    def predict() -> list[tuple[Tensor, Tensor]]:
        found = []
        for start in starts[world.share(len(starts))]:
            batch = images[start : start + batch_size].permute(0, 3, 1, 2)
            anomaly_map, anomaly_score = model(model.normalise(batch))
            found.append((anomaly_map[:, 0].cpu(), anomaly_score.cpu()))
        return found

    maps, scores = zip(*chain(*world.gather(world.together(predict))), strict=True)
    return torch.cat(maps).numpy(), torch.cat(scores).numpy()
