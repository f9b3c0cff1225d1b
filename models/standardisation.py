"""Distances relative to good training images: zero mean, unit deviation per level.

A residual is the difference of the unit vectors of teacher and student at one position; half of its square is
1 - cosine similarity, the discrepancy of reverse distillation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.similarity import EPSILON


class Standardisation(nn.Module):
    """The mean residual of each channel, and mean and deviation of each level's distances, on good images.

    As made, its distances are 1 - cosine similarity.
    """

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        for level, width in enumerate(channels, start=1):
            self.register_buffer(f"offset{level}", torch.zeros(width))
        self.register_buffer("mean", torch.zeros(len(channels)))
        self.register_buffer("deviation", torch.ones(len(channels)))

    @property
    def offsets(self) -> list[Tensor]:
        """Mean residuals of each level, (C_l,)."""
        return [getattr(self, f"offset{level}") for level in range(1, len(self.mean) + 1)]

    def reset(self) -> None:
        """Return to the state as made."""
        for offset in self.offsets:
            offset.zero_()
        self.mean.zero_()
        self.deviation.fill_(1)

    def set_scale(self, mean: Tensor, deviation: Tensor) -> None:
        """Set mean and deviation, both (levels,); a level whose distances are all equal is only shifted."""
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))

    def forward(self, teacher_features: Sequence[Tensor], student_features: Sequence[Tensor]) -> list[Tensor]:
        """Half the squares of the centred residuals of each level (N, C_l, H, W), scaled: (N, H, W), around 0 and of
        deviation 1 on good images."""
        found = zip(teacher_features, student_features, self.offsets, self.mean, self.deviation, strict=True)
        distances = []
        for teacher, student, offset, mean, deviation in found:
            centred = residuals(teacher, student) - offset[:, None, None]
            distances.append((centred.square().sum(dim=1) / 2 - mean) / deviation)
        return distances


def residuals(teacher: Tensor, student: Tensor) -> Tensor:
    """The difference of the unit vectors of two feature maps (N, C, H, W) at each position, float32 (float64 stays).

    A zero vector has no direction and counts as zero.
    """
    return _unit(teacher) - _unit(student)


def _unit(values: Tensor) -> Tensor:
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values / values.norm(dim=1, keepdim=True).clamp_min(EPSILON)
