"""Rows of draws for synthetic anomalies with chosen values, so that a test can say what is drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from datasets.anomalies import synthesis
from datasets.anomalies.synthesis import ANOMALY_DRAWS, CORNERS, MASK_DRAWS, MAX_REDRAWS
from datasets.anomalies.texture_changes import DRAWS, TEXTURE_CHANGES


def row(*, clean: float = 0.5, texture: float = 0.0, weight: float = 0.0, seed: int = 0, first_changes=()) -> Tensor:
    """One row of draws: (1, ANOMALY_DRAWS); what is not given is drawn from `seed`.

    `first_changes` are names of the texture changes that come first, in this order.
    """
    draws = torch.rand(1, ANOMALY_DRAWS, generator=torch.Generator().manual_seed(seed))
    draws[0, :3] = torch.tensor([clean, texture, weight])
    names = [change.apply.__name__ for change in TEXTURE_CHANGES]
    for place, name in enumerate(first_changes):  # changes come in the order of their draws
        draws[0, 3 + names.index(name)] = -1 + 0.1 * place
    return draws


def set_candidate(draws: Tensor, number: int, exponents: tuple[float, float], degrees: float, angles: Tensor) -> None:
    """Say what the candidate mask `number` of a row is: grid of 2^k cells, rotation, gradients (CORNERS, CORNERS)."""
    candidates = draws[:, 3 + DRAWS :].view(1, 1 + MAX_REDRAWS, MASK_DRAWS)
    cells = (torch.tensor(exponents) + 0.5) / 6
    candidates[0, number] = torch.cat(
        [cells, torch.tensor([(degrees + 90) / 180]), (angles / (2 * torch.pi)).view(CORNERS**2)]
    )


def make_candidates(monkeypatch: pytest.MonkeyPatch, sizes: Callable[[int], int]) -> list[int]:
    """Candidate masks that keep so many pixels, one after the other."""
    made = []

    def masks(size, draws):
        made.append(len(draws))
        pixels = (torch.arange(size.numel()) < sizes(len(made))).view(size)
        return pixels.to(torch.uint8).expand(len(draws), *size)

    monkeypatch.setattr(synthesis, "perlin_masks", masks)
    return made
