"""The two training stages: what they minimise, step by step.

With several processes (`execution.world`) each works on its share of a batch. Means over images and over positions are
those of the whole batch, an image's hardest positions are its own; but each process draws the pairs of the
amplification loss from its share alone, and this loss is the mean over the processes' ones, weighted by their images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.batches import SyntheticAnomalies
from models.aand import AAND
from models.amplification import AmplifiedTeacher
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
from utils.system.device import near
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.fitting import remember, standardise
from utils.training.norms import running_statistics
from utils.training.resumable import ResumableStage, StepGenerator
from utils.training.steps import Optimizer, Steps

AMPLIFY_WEIGHT = 0.1


def train_stage1(model: AAND, data: TrainingSet, config: TrainConfig, stage: ResumableStage) -> None:
    """Train the amplification of the teacher's features on synthetic anomalies, from where `stage` is.

    Raises NonFiniteLoss at the end of an epoch in which the loss became NaN or infinite.
    """
    teacher, execution, device = model.teacher, config.execution, model.device
    anomalies = SyntheticAnomalies(
        near(data.images, device), near(data.textures, device), batch_size=config.batch_size, seed=config.seed,
        device=device, share=execution.world.share,
    )
    optimizer = Optimizer(teacher.amplification.parameters(), config.lr, execution, device)
    steps = Steps(optimizer, config.traits.milestones(config.epochs_stage1))
    generator = StepGenerator(config.seed, execution.world)
    stage.track(**steps.tracked, generator=generator)
    for epoch in stage.epochs(config.epochs_stage1):
        bare = torch.zeros((), dtype=torch.long, device=device)
        for images, masks, foregrounds in stage.steps(anomalies.epoch(epoch)):
            bare += (foregrounds.flatten(1).amax(dim=1) == 0).sum()
            draws = generator.at(epoch, stage.step)
            focal, amplify, counts = stage1_losses(teacher, images, masks, foregrounds, draws, execution)
            steps.take(focal + AMPLIFY_WEIGHT * amplify, len(images), counts, focal=focal, amplify=amplify)
        stage.log(epoch, steps.end_epoch())
        if epoch == 1 and data.view.windows == 1 and (number := execution.world.total(int(bare))):
            where = "" if data.made else f" (masks in {config.fg_root})"
            stage.say(f"{number} of {len(data.images)} images have no foreground: no anomaly is painted on them{where}")


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


def train_stage2(model: AAND, data: TrainingSet, config: TrainConfig, stage: ResumableStage) -> None:
    """Train the student to rebuild the teacher's features of good images, from where `stage` is; with `eval_every` the
    test metrics are logged, and influence nothing.

    Raises NonFiniteLoss at the end of an epoch in which the loss became NaN or infinite.
    """
    recipe, execution, last = config.traits, config.execution, config.epochs_stage2
    features = keep_features(model, data, config, stage)
    if model.memory is not None and not stage.resumed:
        remember(model.memory, features, stage)
    student = [weight for part in model.student_parts for weight in part.parameters()]
    statistics = running_statistics(*model.student_parts)
    steps = Steps(Optimizer(student, config.lr, execution, model.device, statistics), recipe.milestones(last))
    stage.track(**steps.tracked)
    for epoch in stage.epochs(last):
        model.train()
        for teacher_features in stage.steps(features.epoch(epoch)):
            loss = stage2_loss(model, teacher_features, recipe.hard_positions, execution)
            steps.take(loss, len(teacher_features[0]))
        figures = steps.end_epoch()
        model.eval()
        tested = bool(data.test_set) and (epoch % config.eval_every == 0 or epoch == last)
        if recipe.standardised and (tested or epoch == last):
            standardise(model, features, execution)
        if tested:
            figures |= data.test_set.metrics(model, config.batch_size, execution.world)
        stage.log(epoch, figures)


def keep_features(model: AAND, data: TrainingSet, config: TrainConfig, stage: ResumableStage) -> TeacherFeatures:
    """The teacher's features of the training images, kept where they fit; for a stage that is resumed as they were
    before, whatever fits now, since a batch's size changes how features are rounded."""
    size, seed, choice = config.batch_size, config.seed, config.cache_features
    features = TeacherFeatures(
        model, data.images, batch_size=size, seed=seed, execution=config.execution, windows=data.view.windows
    )
    if config.world.size == 1:  # several processes stop together, between steps
        features.check = stage.check
    if stage.resumed:
        choice = "on" if stage.notes.get("features kept") else "off"
    stage.say(features.keep(choice, config.cache, config.cache_dir))
    stage.notes["features kept"] = features.kept is not None
    return features


def stage2_loss(model: AAND, teacher_features: list[Tensor], hard_positions: bool, execution: Execution) -> Tensor:
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
