"""Perlin masks: golden noise and noise by hand, rotation, and which candidate becomes the mask."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.anomalies import synthesis
from datasets.anomalies.synthesis import CORNERS, MASK_DRAWS, draw_masks, perlin_masks, perlin_noise
from datasets.anomalies.texture_changes import rotate_images
from tests.support.draws import make_candidates, row, set_candidate

GOLDEN = Path(__file__).parents[1] / "support" / "golden"


def padded(angles: np.ndarray) -> torch.Tensor:
    """Angles of a small grid in the upper left corner of the largest one; the rest must not matter."""
    whole = torch.full((1, CORNERS, CORNERS), 1.234)
    whole[0, : angles.shape[0], : angles.shape[1]] = torch.from_numpy(angles)
    return whole


@pytest.mark.parametrize("k, cells", list(enumerate([(1, 1), (4, 8), (32, 2), (16, 16)])))
def test_perlin_noise_matches_golden(k, cells):
    rows, columns = cells
    angles = 2 * np.pi * np.random.RandomState(100 + k).rand(rows + 1, columns + 1)
    exponents = torch.tensor([[round(math.log2(rows)), round(math.log2(columns))]])
    noise = perlin_noise(256, exponents, padded(angles))
    assert noise.dtype == torch.float32
    assert noise.shape == (1, 256, 256)
    golden = np.load(GOLDEN / "perlin.npz")[f"noise_{rows}_{columns}"]
    np.testing.assert_allclose(noise[0, ::9, ::9], golden, atol=1e-5)


def test_perlin_noise_by_hand():
    # All gradients point down the rows, so the noise depends on the row only; half-way in a cell (t = 0.5) both fade
    # weights are 0.5 and the offsets 0.5 and -0.5 cancel; at t = 0.25 fade is 0.103515625.
    noise = perlin_noise(4, torch.tensor([[0, 1]]), torch.zeros(1, CORNERS, CORNERS))[0]
    quarter = math.sqrt(2) * ((1 - 0.103515625) * 0.25 + 0.103515625 * -0.75)
    np.testing.assert_allclose(noise, np.repeat([[0], [quarter], [0], [-quarter]], 4, axis=1), atol=1e-6)


def candidate(exponents: tuple[int, int], degrees: float, angles: torch.Tensor) -> torch.Tensor:
    draws = row()
    set_candidate(draws, 0, exponents, degrees, angles)
    return draws[:, -11 * MASK_DRAWS : -10 * MASK_DRAWS]


def test_perlin_mask_is_the_rotated_noise_above_a_half():
    angles = 2 * math.pi * torch.rand(CORNERS, CORNERS, generator=torch.Generator().manual_seed(1))
    noise = perlin_noise(64, torch.tensor([[1, 2]]), angles[None])[0]
    assert (noise > 0.5).any()
    upright, turned = (perlin_masks(64, candidate((1, 2), degrees, angles))[0] for degrees in (0, 90))
    assert upright.dtype == torch.uint8
    assert ((upright == 1) == (noise > 0.5)).float().mean() > 0.999
    assert ((turned == 1) == torch.rot90(noise > 0.5)).float().mean() > 0.999


def test_rotation_brings_in_zeros():
    rotated = rotate_images(torch.ones(1, 1, 64, 64), torch.tensor([45.0]))[0, 0]
    assert rotated[0, 0] == rotated[63, 63] == 0
    assert rotated[32, 32] == 1


def test_every_number_of_cells_is_drawn_alike(monkeypatch):
    seen = []
    noise = torch.zeros(3600, 8, 8)
    monkeypatch.setattr(synthesis, "perlin_noise", lambda size, exponents, angles: seen.append(exponents) or noise)
    perlin_masks(8, torch.rand(3600, MASK_DRAWS, generator=torch.Generator().manual_seed(0)))
    pairs, counts = torch.cat(seen).unique(dim=0, return_counts=True)
    assert pairs.tolist() == [[i, j] for i in range(6) for j in range(6)]
    assert counts.min() > 60  # 100 expected, 10 the spread


def test_small_masks_are_drawn_again(monkeypatch):
    made = make_candidates(monkeypatch, lambda nth: nth)  # the fifth is the first with more than 4
    masks = draw_masks(torch.ones(2, 8, 8, dtype=torch.uint8), torch.zeros(2, 11, MASK_DRAWS))
    assert made == [2] * 5
    assert masks.sum(dim=(1, 2)).tolist() == [5, 5]


def test_only_images_without_a_mask_get_another(monkeypatch):
    made = make_candidates(monkeypatch, lambda nth: 10 * nth)
    foregrounds = torch.ones(3, 8, 8, dtype=torch.uint8)
    foregrounds[1] = 0
    foregrounds[1, 3:] = 1  # rows from the fourth on: the third candidate is the first to reach so far
    masks = draw_masks(foregrounds, torch.zeros(3, 11, MASK_DRAWS))
    assert made == [3, 1, 1]
    assert masks.sum(dim=(1, 2)).tolist() == [10, 6, 10]
