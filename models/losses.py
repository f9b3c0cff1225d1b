"""The losses of both stages, as pure functions of one level: tensors in, scalar out.

Masks of a level are 0/1 floats (N, 1, H, W) made by `level_mask`. Sums over levels are the caller's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.aand import EPSILON, cosine_distance

FOCAL_GAMMA = 2.0
FOCAL_ALPHA = 0.8  # weight of anomalous positions; normal ones weigh 1 - alpha
AMPLIFY_MARGIN = 0.3
AMPLIFY_NORMAL = 5000  # at most so many normal and anomalous positions of a batch make pairs
AMPLIFY_ANOMALOUS = 1000
HARD_POSITIONS = 10


def level_mask(mask: Tensor, size: tuple[int, int], threshold: float = 0.3) -> Tensor:
    """A 0/1 image mask (N, 1, H, W) at a level's `size`: 1 where more than `threshold` of the area is 1."""
    return (F.adaptive_avg_pool2d(mask.float(), size) > threshold).float()


def gate_focal_loss(gate: Tensor, mask: Tensor) -> Tensor:
    """Focal loss of the gate (N, 1, H, W), in (0, 1), against the level's mask; mean over positions."""
    true_share = torch.where(mask > 0, gate, 1 - gate).clamp_min(torch.finfo(gate.dtype).tiny)
    alpha = torch.where(mask > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (-alpha * (1 - true_share) ** FOCAL_GAMMA * true_share.log()).mean()


def gate_counts(gate: Tensor, mask: Tensor) -> Tensor:
    """(true positives, predicted positives, anomalous positions) of the gate at 0.5, as a tensor (3,)."""
    predicted, anomalous = gate > 0.5, mask > 0
    return torch.stack([(predicted & anomalous).sum(), predicted.sum(), anomalous.sum()])


def amplification_loss(
    features: Tensor, amplified: Tensor, mask: Tensor, foreground: Tensor, generator: torch.Generator
) -> Tensor:
    """Push the amplified anomalous features away from the normal ones, by a margin beyond where they were.

    Mean over pairs of a normal foreground position n and an anomalous one a, anywhere in the batch, of
    relu(cos(F_n, A_a) - (cos(F_n, F_a) - 0.3)); 0 without an anomalous or normal position.

    features, amplified: (N, C, H, W); mask, foreground: (N, 1, H, W) of 0/1; `generator`, on the CPU, draws positions.
    """
    vectors = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # (N*H*W, C)
    amplified_vectors = amplified.float().permute(0, 2, 3, 1).flatten(0, 2)
    mask, foreground = mask.flatten() > 0, foreground.flatten() > 0
    normal = _draw((foreground & ~mask).nonzero().squeeze(1), AMPLIFY_NORMAL, generator)
    anomalous = _draw(mask.nonzero().squeeze(1), AMPLIFY_ANOMALOUS, generator)
    if len(normal) == 0 or len(anomalous) == 0:
        return amplified_vectors.sum() * 0
    normal_units = F.normalize(vectors[normal], dim=1, eps=EPSILON)
    after = normal_units @ F.normalize(amplified_vectors[anomalous], dim=1, eps=EPSILON).T  # (normal, anomalous)
    before = normal_units @ F.normalize(vectors[anomalous], dim=1, eps=EPSILON).T
    return F.relu(after - (before - AMPLIFY_MARGIN)).mean()


def hard_distillation_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over images of the mean of the 10 positions (N, C, H, W) that the student rebuilds worst."""
    distance = cosine_distance(teacher, student).flatten(1)  # (N, H*W)
    return distance.topk(min(HARD_POSITIONS, distance.shape[1]), dim=1).values.mean()


def flattened_cosine_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over images of 1 - cosine of the flattened maps (N, C, H, W): reverse distillation's loss."""
    return cosine_distance(teacher.flatten(1), student.flatten(1)).mean()


def _draw(positions: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if len(positions) <= most:
        return positions
    drawn = torch.randperm(len(positions), generator=generator)[:most]
    return positions[drawn.to(positions.device)]
