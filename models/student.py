"""Stage II: the student, a one-class bottleneck embedding (OCBE) followed by a decoder that mirrors the teacher.

As in reverse distillation (Deng & Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR
2022): the student sees the teacher's features alone, squeezed to stride 32, and rebuilds them level by level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Conv2dNormActivation

from models.teacher import StudentPlan


class OneClassBottleneck(nn.Module):
    """Fuse the three levels (N, C_l, H_l, W_l) into an embedding (N, 2 * C3, H_3 / 2, W_3 / 2)."""

    def __init__(self, plan: StudentPlan):
        super().__init__()
        c1, c2, c3 = plan.channels
        self.reduce1 = nn.Sequential(*Conv2dNormActivation(c1, c2, stride=2), *Conv2dNormActivation(c2, c3, stride=2))
        self.reduce2 = nn.Sequential(*Conv2dNormActivation(c2, c3, stride=2))
        self.embed = _residual_stage(plan, 3 * c3, 2 * c3, plan.depths[0], upsample=False)
        _initialise(self)

    def forward(self, features: list[Tensor]) -> Tensor:
        level1, level2, level3 = features
        fused = torch.cat([self.reduce1(level1), self.reduce2(level2), level3], dim=1)  # (N, 3*C3, H/16, W/16)
        return self.embed(fused)  # (N, 2*C3, H/32, W/32)


class ReverseDecoder(nn.Module):
    """Rebuild the three levels, finest first in the result, from the embedding."""

    def __init__(self, plan: StudentPlan):
        super().__init__()
        c1, c2, c3 = plan.channels
        depth3, depth2, depth1 = plan.depths
        self.level3 = _residual_stage(plan, 2 * c3, c3, depth3, upsample=True)
        self.level2 = _residual_stage(plan, c3, c2, depth2, upsample=True)
        self.level1 = _residual_stage(plan, c2, c1, depth1, upsample=True)
        _initialise(self)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        level3 = self.level3(embedding)  # (N, C3, H/16, W/16)
        level2 = self.level2(level3)  # (N, C2, H/8, W/8)
        level1 = self.level1(level2)  # (N, C1, H/4, W/4)
        return [level1, level2, level3]


class LinearHeads(nn.Module):
    """A 1x1 convolution for each of the decoder's levels, which end in a ReLU: for teachers whose features can be
    negative. Each is the identity at first."""

    def __init__(self, plan: StudentPlan):
        super().__init__()
        for level, width in enumerate(plan.channels, start=1):
            head = nn.Conv2d(width, width, 1)
            nn.init.dirac_(head.weight)
            nn.init.zeros_(head.bias)
            self.add_module(f"level{level}", head)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        return [head(level) for head, level in zip(self.children(), levels, strict=True)]


def _residual_stage(plan: StudentPlan, channels_in: int, channels_out: int, depth: int, upsample: bool) -> nn.Module:
    """Residual blocks of torchvision's making; the first one halves the size, or doubles it with `upsample`."""
    kind = BasicBlock if plan.basic else Bottleneck
    planes = channels_out // kind.expansion
    if upsample:
        resize = nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2, bias=False)
    else:
        resize = nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False)
    shortcut = nn.Sequential(resize, nn.BatchNorm2d(channels_out))
    first = kind(channels_in, planes, 1 if upsample else 2, shortcut, base_width=plan.base_width)
    if upsample:  # the block's first 3x3 convolution gives way to a transposed one
        name = "conv1" if plan.basic else "conv2"
        conv = getattr(first, name)
        setattr(first, name, nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 2, stride=2, bias=False))
    rest = [kind(channels_out, planes, base_width=plan.base_width) for _ in range(1, depth)]
    return nn.Sequential(first, *rest)


def _initialise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
