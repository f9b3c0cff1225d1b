"""Losses of whole maps, put together as the stages do, and stages that are stopped, for tests."""

from __future__ import annotations

import signal

import pytest
import torch
from torch import Tensor

from models.losses import amplification_loss, draw_positions
from utils.system.signals import Interrupted
from utils.training.resumable import ResumableStage


def amplify_maps(
    features: Tensor, amplified: Tensor, mask: Tensor, foreground: Tensor, generator: torch.Generator
) -> Tensor:
    """The amplification loss of maps (N, C, H, W); mask and foreground (N, 1, H, W) of 0/1."""
    normal, anomalous = draw_positions(mask, foreground, generator)
    before, after = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (features, amplified))
    return amplification_loss(before[normal], before[anomalous], after[anomalous])


def stop_at_check(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let training stop, as if asked to, at a check: there is one before each step and after each epoch, from 1 on."""
    left, stop = iter(range(number - 1)), ResumableStage._stop_if_asked

    def check() -> None:
        if next(left, None) is None:
            raise Interrupted(signal.SIGTERM)

    def ask(stage: ResumableStage) -> None:
        stage.check = check
        stop(stage)

    patch.setattr(ResumableStage, "_stop_if_asked", ask)
