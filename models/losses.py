"""The losses of both stages, as pure functions of one level: tensors in, scalar out.

Masks of a level are 0/1 floats (N, 1, H, W) made by `level_mask`; `compare_features(teacher, student)` gives the
similarity that Stage II's losses take. Sums over levels are the caller's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.similarity import EPSILON, FeatureSimilarity

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


def draw_positions(mask: Tensor, foreground: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of a batch for the amplification loss: at most 5,000 normal ones of the foreground, 1,000 anomalous.

    mask, foreground: (N, 1, H, W) of 0/1; `generator`, on the CPU, draws. Returns indices into the N * H * W positions.
    """
    mask, foreground = mask.flatten() > 0, foreground.flatten() > 0
    normal = _draw((foreground & ~mask).nonzero().squeeze(1), AMPLIFY_NORMAL, generator)
    anomalous = _draw(mask.nonzero().squeeze(1), AMPLIFY_ANOMALOUS, generator)
    return normal, anomalous


def amplification_loss(normal: Tensor, anomalous: Tensor, amplified: Tensor) -> Tensor:
    """Push the amplified anomalous features away from the normal ones, by a margin beyond where they were.

    Mean over pairs of a normal position n and an anomalous one a of relu(cos(F_n, A_a) - (cos(F_n, F_a) - 0.3)); 0
    without an anomalous or normal position.

    normal: F_n (P, C); anomalous, amplified: F_a and A_a (Q, C).
    """
    if len(normal) == 0 or len(anomalous) == 0:
        return amplified.float().sum() * 0
    normal, anomalous, amplified = (
        F.normalize(vectors.float(), dim=1, eps=EPSILON) for vectors in (normal, anomalous, amplified)
    )
    nearer = normal @ (amplified - anomalous).T  # (P, Q): cos(F_n, A_a) - cos(F_n, F_a), in one product
    return F.relu(nearer + AMPLIFY_MARGIN).mean()


def hard_distillation_loss(similarity: FeatureSimilarity) -> Tensor:
    """Mean over images of the mean of the 10 positions that the student rebuilds worst."""
    distance = similarity.distance().flatten(1)  # (N, H*W)
    return distance.topk(min(HARD_POSITIONS, distance.shape[1]), dim=1).values.mean()


def flattened_cosine_loss(similarity: FeatureSimilarity) -> Tensor:
    """Mean over images of 1 - cosine of the flattened maps: reverse distillation's loss."""
    return similarity.flattened_distance().mean()


def _draw(positions: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if len(positions) <= most:
        return positions
    drawn = torch.randperm(len(positions), generator=generator)[:most]
    return positions[drawn.to(positions.device)]
