"""The two training stages and the prediction of anomaly maps.

A stage trains its model in place and calls `on_epoch(epoch, figures)` after each epoch, `figures` being plain floats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader

from models.aand import AAND
from models.amplification import AmplifiedTeacher
from models.losses import (
    amplification_loss,
    flattened_cosine_loss,
    gate_counts,
    gate_focal_loss,
    hard_distillation_loss,
    level_mask,
)

ADAM_BETAS = (0.5, 0.999)
LR_MILESTONES = (0.8, 0.9)  # shares of the epochs after which the learning rate falls
LR_FACTOR = 0.2
AMPLIFY_WEIGHT = 0.1
PRECISIONS = ("fp32", "bf16")

OnEpoch = Callable[[int, dict[str, float]], None]


def train_stage1(
    teacher: AmplifiedTeacher,
    loader: DataLoader,
    *,
    epochs: int,
    lr: float,
    seed: int,
    precision: str,
    on_epoch: OnEpoch,
) -> None:
    """Train the amplification on synthetic anomalies: batches (images, masks, foregrounds) of `SyntheticAnomalies`."""
    optimizer = Adam(teacher.amplification.parameters(), lr, betas=ADAM_BETAS)
    scheduler = MultiStepLR(optimizer, lr_milestones(epochs), gamma=LR_FACTOR)
    generator = torch.Generator()
    for epoch in range(1, epochs + 1):
        loader.batch_sampler.epoch = epoch
        generator.manual_seed(_mix(seed, epoch))
        figures = Average()
        for images, masks, foregrounds in loader:
            focal, amplify, counts = stage1_losses(teacher, images, masks, foregrounds, generator, precision)
            loss = focal + AMPLIFY_WEIGHT * amplify
            _step(optimizer, loss)
            figures.add(len(images), loss=loss, focal=focal, amplify=amplify)
            figures.count(counts)
        scheduler.step()
        on_epoch(epoch, figures.result())


def stage1_losses(
    teacher: AmplifiedTeacher,
    images: Tensor,
    masks: Tensor,
    foregrounds: Tensor,
    generator: torch.Generator,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over levels of the focal and the amplification loss, and the gate's counts (levels, 3).

    images: uint8 (N, 3, S, S); masks, foregrounds: (N, 1, S, S) of 0/1.
    """
    inputs = teacher.pretrained.normalise(images)
    masks, foregrounds = masks.to(inputs.device), foregrounds.to(inputs.device)
    with autocast(inputs, precision):
        features = teacher.pretrained(inputs)
        level_masks = [level_mask(masks, level.shape[-2:]) for level in features]
        outputs = teacher.amplify(features, level_masks)
    focal = amplify = inputs.new_zeros(())
    for level, output, mask in zip(features, outputs, level_masks, strict=True):
        foreground = level_mask(foregrounds, level.shape[-2:])
        focal = focal + gate_focal_loss(output.gate, mask)
        amplify = amplify + amplification_loss(level, output.amplified, mask, foreground, generator)
    counts = torch.stack([gate_counts(o.gate, mask) for o, mask in zip(outputs, level_masks, strict=True)])
    return focal, amplify, counts


def train_stage2(
    model: AAND,
    loader: DataLoader,
    *,
    epochs: int,
    lr: float,
    precision: str,
    on_epoch: OnEpoch,
    hard_positions: bool = True,
    schedule: bool = True,
) -> None:
    """Train the student to rebuild the teacher's features of good images: batches of `NormalImages`.

    `hard_positions` adds the loss of the worst positions, `schedule` lowers the learning rate; plain reverse
    distillation has neither.
    """
    student = nn.ModuleList([model.bottleneck, model.decoder])
    optimizer = Adam(student.parameters(), lr, betas=ADAM_BETAS)
    scheduler = MultiStepLR(optimizer, lr_milestones(epochs) if schedule else [], gamma=LR_FACTOR)
    for epoch in range(1, epochs + 1):
        loader.batch_sampler.epoch = epoch
        model.train()
        figures = Average()
        for images in loader:
            loss = stage2_loss(model, images, hard_positions, precision)
            _step(optimizer, loss)
            figures.add(len(images), loss=loss)
        scheduler.step()
        model.eval()
        on_epoch(epoch, figures.result())


def stage2_loss(model: AAND, images: Tensor, hard_positions: bool, precision: str) -> Tensor:
    """Sum over levels of the distillation losses of uint8 images (N, 3, S, S)."""
    inputs = model.normalise(images)
    with autocast(inputs, precision):
        with torch.no_grad():
            teacher_features = model.teacher(inputs)
        student_features = model.student(teacher_features)
    loss = inputs.new_zeros(())
    for teacher, student in zip(teacher_features, student_features, strict=True):
        loss = loss + flattened_cosine_loss(teacher, student)
        if hard_positions:
            loss = loss + hard_distillation_loss(teacher, student)
    return loss


@torch.inference_mode()
def predict_maps(model: AAND, images: Tensor, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly maps float32 (N, S, S) and scores (N,) of uint8 images (N, S, S, 3), in float32 arithmetic."""
    model.eval()
    maps, scores = [], []
    for batch in images.split(batch_size):
        anomaly_map, anomaly_score = model(model.normalise(batch.permute(0, 3, 1, 2)))
        maps.append(anomaly_map[:, 0].cpu())
        scores.append(anomaly_score.cpu())
    return torch.cat(maps).numpy(), torch.cat(scores).numpy()


def autocast(inputs: Tensor, precision: str) -> torch.autocast:
    """The arithmetic of convolutions: float32, or bfloat16 where autocast allows it; losses stay outside."""
    return torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16")


class Average:
    """Means over an epoch, weighted by batch size, gathered on the device and read once at the end."""

    def __init__(self):
        self.images = 0
        self.sums: dict[str, Tensor | float] = defaultdict(float)
        self.gate_counts: Tensor | float = 0.0  # (levels, 3): true positives, predicted, anomalous

    def add(self, images: int, **values: Tensor) -> None:
        self.images += images
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() * images

    def count(self, gate_counts: Tensor) -> None:
        self.gate_counts = self.gate_counts + gate_counts

    def result(self) -> dict[str, float]:
        """Means by name; with gate counts also their precision and recall, means over the levels that have them."""
        figures = {name: float(value) / self.images for name, value in self.sums.items()}
        if isinstance(self.gate_counts, Tensor):
            hits, predicted, anomalous = self.gate_counts.double().cpu().T  # (levels,) each
            for name, total in (("gate_precision", predicted), ("gate_recall", anomalous)):
                if (total > 0).any():
                    figures[name] = float((hits / total)[total > 0].mean())
        return figures


def lr_milestones(epochs: int) -> list[int]:
    """The epochs after which the learning rate falls; the first epoch always has the whole rate."""
    return [max(1, int(share * epochs)) for share in LR_MILESTONES]


def _step(optimizer: Adam, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
