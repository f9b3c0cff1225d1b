"""Stage I: residual anomaly amplification (RAA), which makes the teacher's features of anomalies stand out.

    amplified = features + gate * residual, one RAA per level; the trunk itself stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.similarity import EPSILON
from models.teacher import PretrainedTeacher

MEMORY_ITEMS = 50  # of each kind: 50 normal, 50 anomalous
TEMPERATURE = 0.2
LARGEST_HIDDEN = 1024


class Amplification(NamedTuple):
    """The RAA's outputs at one level."""

    amplified: Tensor  # (N, C, H, W)
    gate: Tensor  # (N, 1, H, W), in (0, 1), learned
    residual: Tensor  # (N, C, H, W), what was added


class PointwiseMLP(nn.Sequential):
    """Three 1x1 convolutions C -> h -> h -> C with ReLU between, h = min(2C, 1024)."""

    def __init__(self, channels: int):
        hidden = min(2 * channels, LARGEST_HIDDEN)
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
        )


def sine_position_code(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """The fixed 2-D sine code P (channels, height, width): first half of the channels codes the column, second the row.

    Within a half of d channels, channel 2i is sin(p * w_i), channel 2i + 1 cos(p * w_i), w_i = 10000^(-2i/d).
    """

    def code(count: int, length: int) -> Tensor:
        even = torch.arange(0, count, 2, device=device)
        frequency = 10000.0 ** (-even / count)
        angle = torch.arange(length, device=device) * frequency[:, None]  # (count / 2, length)
        return torch.stack([angle.sin(), angle.cos()], dim=1).flatten(0, 1)[:count]  # (count, length)

    half = channels // 2
    columns = code(half, width)[:, None, :].expand(half, height, width)
    rows = code(channels - half, height)[:, :, None].expand(channels - half, height, width)
    return torch.cat([columns, rows])


class MatchingGuidedResidualGate(nn.Module):
    """The anomaly of each position: its query's softmax share of the anomalous memory items."""

    def __init__(self, channels: int):
        super().__init__()
        self.query = PointwiseMLP(channels)
        self.memory = nn.Parameter(torch.randn(2 * MEMORY_ITEMS, channels))  # normal items first

    def forward(self, features: Tensor) -> Tensor:
        position = sine_position_code(*features.shape[1:], features.device).to(features.dtype)
        query = self.query(features + position)  # (N, C, H, W)
        with torch.autocast(features.device.type, enabled=False):  # cosine and softmax stay in float32
            query, memory = query.float(), F.normalize(self.memory.float(), dim=1)
            length = query.norm(dim=1, keepdim=True).clamp_min(EPSILON)  # (N, 1, H, W)
            logits = F.conv2d(query, memory[:, :, None, None]) / (TEMPERATURE * length)  # (N, 100, H, W)
            normal, anomalous = (items.logsumexp(dim=1, keepdim=True) for items in logits.split(MEMORY_ITEMS, dim=1))
            return torch.sigmoid(anomalous - normal)  # the anomalous items' share of the softmax


class AttributeScalingResidualGenerator(nn.Module):
    """The residual: each feature scaled by a learned factor in (-1, 1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = PointwiseMLP(channels)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.scale(features)) * features


class ResidualAnomalyAmplification(nn.Module):
    """The RAA of one level."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = MatchingGuidedResidualGate(channels)
        self.generator = AttributeScalingResidualGenerator(channels)

    def forward(self, features: Tensor) -> Amplification:
        """Amplify features (N, C, H, W); the result has their type, the gate is float32."""
        gate = self.gate(features)
        residual = gate.to(features.dtype) * self.generator(features)
        return Amplification(features + residual, gate, residual)

    def amplify_anomalies(self, vectors: Tensor) -> Tensor:
        """Amplify the features (Q, C) of positions that are known to be anomalous: with 1 in the gate's place.

        Every step of the generator looks at one position alone, so Stage I, where the true mask takes the gate's place,
        computes it only where that mask is 1 and the loss looks.
        """
        return vectors + self.generator(vectors[:, :, None, None])[:, :, 0, 0]


class AmplifiedTeacher(nn.Module):
    """A frozen teacher with an RAA at each level; called with images it returns the amplified features A_l."""

    def __init__(self, pretrained: PretrainedTeacher):
        super().__init__()
        self.pretrained = pretrained
        self.amplification = nn.ModuleList(ResidualAnomalyAmplification(c) for c in pretrained.plan.channels)

    def amplify(self, features: list[Tensor]) -> list[Amplification]:
        return [amplification(level) for amplification, level in zip(self.amplification, features, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return [level.amplified for level in self.amplify(self.pretrained(images))]
