"""Networks with batch norms for tests: norms that change something, and what they are tried on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def randomise_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm statistics and parameters that change something; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            part.weight.uniform_(0.5, 1.5, generator=generator)
            part.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def noise(count: int = 2, channels: int = 3, size: int = 64) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
