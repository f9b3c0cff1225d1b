"""Losses of whole maps, put together as the stages do, for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from models.losses import amplification_loss, draw_positions


def amplify_maps(
    features: Tensor, amplified: Tensor, mask: Tensor, foreground: Tensor, generator: torch.Generator
) -> Tensor:
    """The amplification loss of maps (N, C, H, W); mask and foreground (N, 1, H, W) of 0/1."""
    normal, anomalous = draw_positions(mask, foreground, generator)
    before, after = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (features, amplified))
    return amplification_loss(before[normal], before[anomalous], after[anomalous])
