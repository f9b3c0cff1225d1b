"""Losses: golden values and gradients, cases worked out by hand, and zero vectors."""

from __future__ import annotations

import math

import pytest
import torch

from models import losses
from models.losses import (
    flattened_cosine_loss,
    gate_counts,
    gate_focal_loss,
    hard_distillation_loss,
    level_mask,
)
from models.similarity import compare_features
from tests.support.golden import EXPECTED, array
from tests.support.stages import amplify_maps

GOLDEN = EXPECTED["losses"]
SIZES = (64, 32, 16)


def golden_levels():
    """Teacher levels, second inputs, gates, masks and foregrounds as golden/README describes them."""
    mask, foreground = torch.zeros(2, 1, 256, 256), torch.zeros(2, 1, 256, 256)
    mask[:, :, 100:140, 60:120] = 1
    mask[1, :, 30:37, 200:211] = 1
    foreground[:, :, 32:224, 32:224] = 1
    for i, n in enumerate(SIZES):
        teacher = array(10 + i, (2, 8, n, n))
        second = (teacher + 0.3 * array(20 + i, (2, 8, n, n))).requires_grad_()
        gate = array(30 + i, (2, n * n, 1)).sigmoid().transpose(1, 2).reshape(2, 1, n, n).requires_grad_()
        yield teacher, second, gate, level_mask(mask, (n, n)), level_mask(foreground, (n, n))


def hard(teacher, student):
    return hard_distillation_loss(compare_features(teacher, student))


def flattened(teacher, student):
    return flattened_cosine_loss(compare_features(teacher, student))


def assert_gradients(tensors, golden):
    for tensor, expected in zip(tensors, golden, strict=True):
        found = [tensor.grad.mean().item(), tensor.grad.std().item(), tensor.grad.abs().max().item()]
        # the mean of a gradient is a small difference of large sums: it is compared on the scale of the gradient
        assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-5 * expected[2])
        assert found[1:] == pytest.approx(expected[1:], rel=1e-5)


def test_gate_focal_loss_matches_golden_value_and_gradient():
    levels = list(golden_levels())
    loss = sum(gate_focal_loss(gate, mask) for _, _, gate, mask, _ in levels)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["gate_focal"], rel=1e-5)
    assert_gradients([gate for _, _, gate, _, _ in levels], GOLDEN["gate_focal_grad"])


def test_gate_precision_and_recall_match_golden():
    counts = torch.stack([gate_counts(gate, mask) for _, _, gate, mask, _ in golden_levels()]).double()
    assert (counts[:, 0] / counts[:, 1]).mean().item() == pytest.approx(GOLDEN["gate_precision"], rel=1e-5)
    assert (counts[:, 0] / counts[:, 2]).mean().item() == pytest.approx(GOLDEN["gate_recall"], rel=1e-5)


def test_amplification_loss_matches_golden_value_and_gradient():
    levels = list(golden_levels())
    generator = torch.Generator()
    loss = sum(amplify_maps(t, b, mask, foreground, generator) for t, b, _, mask, foreground in levels)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["amplify"], rel=1e-5)
    assert_gradients([b for _, b, _, _, _ in levels], GOLDEN["amplify_grad"])


def test_distillation_loss_matches_golden_value_and_gradient():
    levels = list(golden_levels())
    loss = sum(hard(t, b) + flattened(t, b) for t, b, _, _, _ in levels)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN["hard_distillation"], rel=1e-5)
    assert_gradients([b for _, b, _, _, _ in levels], GOLDEN["hard_distillation_grad"])


def test_level_mask_wants_more_than_three_tenths_of_the_area():
    mask = torch.zeros(1, 1, 20, 10)
    mask[..., :3, :] = 1  # 30 of the upper 100 pixels: not more than 0.3
    assert level_mask(mask, (2, 1)).flatten().tolist() == [0, 0]
    mask[..., 3, 0] = 1
    assert level_mask(mask, (2, 1)).flatten().tolist() == [1, 0]


def test_focal_loss_by_hand():
    gate = torch.tensor([0.5, 0.25]).view(1, 1, 1, 2)
    mask = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    anomalous, normal = 0.8 * 0.5**2 * math.log(2), 0.2 * 0.25**2 * -math.log(0.75)
    assert gate_focal_loss(gate, mask).item() == pytest.approx((anomalous + normal) / 2, rel=1e-6)


def test_amplification_loss_by_hand():
    # one row: normal (1, 0), anomalous (1, 1) amplified to (0, 1), background (5, 5) which makes no pair
    features = torch.tensor([[1.0, 1.0, 5.0], [0.0, 1.0, 5.0]]).view(1, 2, 1, 3)
    amplified = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]).view(1, 2, 1, 3)
    mask = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 3)
    foreground = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3)
    generator = torch.Generator()
    # cos after = 0, before = 0.7071: already further apart than the margin
    assert amplify_maps(features, amplified, mask, foreground, generator).item() == 0
    # unamplified: after = before, so the margin is what is left
    assert amplify_maps(features, features, mask, foreground, generator).item() == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize("mask_value", [0.0, 1.0])
def test_amplification_loss_is_zero_without_a_pair(mask_value):
    features = array(0, (1, 4, 3, 3)).requires_grad_()
    mask = torch.full((1, 1, 3, 3), mask_value)
    loss = amplify_maps(features, features * 2, mask, torch.ones_like(mask), torch.Generator())
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_amplification_loss_draws_no_more_than_the_limits(monkeypatch):
    monkeypatch.setattr(losses, "AMPLIFY_NORMAL", 1)
    monkeypatch.setattr(losses, "AMPLIFY_ANOMALOUS", 1)
    features = array(1, (1, 4, 8, 8))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    units = torch.nn.functional.normalize(features.flatten(2)[0].T, dim=1)
    amplified = array(2, features.shape)
    after = units @ torch.nn.functional.normalize(amplified.flatten(2)[0].T, dim=1).T
    pairs = torch.relu(after - (units @ units.T - 0.3))  # every pair's loss: a draw of one pair gives one of them
    allowed = pairs[~(mask.flatten() > 0)][:, mask.flatten() > 0]
    seen = set()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        value = amplify_maps(features, amplified, mask, torch.ones_like(mask), generator)
        assert torch.isclose(allowed, value, atol=1e-6).any()
        seen.add(round(value.item(), 5))
    assert len(seen) > 1
    again = amplify_maps(features, amplified, mask, torch.ones_like(mask), torch.Generator().manual_seed(4))
    assert torch.equal(again, value)


def test_distillation_losses_by_hand():
    teacher = torch.zeros(1, 2, 1, 12)
    teacher[:, 0] = 1
    student = teacher.clone()
    student[0, :, 0, 0] = torch.tensor([0.0, 1.0])  # 1 - cos = 1 at one position, 0 at eleven
    assert hard(teacher, student).item() == pytest.approx(1 / 10, abs=1e-6)
    assert flattened(teacher, student).item() == pytest.approx(1 - 11 / 12, abs=1e-6)


def test_a_level_smaller_than_ten_positions_uses_all_of_them():
    teacher, student = array(3, (2, 4, 2, 2)), array(4, (2, 4, 2, 2))
    distance = 1 - torch.nn.functional.cosine_similarity(teacher, student, dim=1)
    assert hard(teacher, student).item() == pytest.approx(distance.mean().item(), rel=1e-6)


def test_zero_vectors_have_finite_losses_and_gradients():
    zeros = torch.zeros(1, 4, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 0] = 1
    features = torch.zeros(1, 4, 4, 4)
    loss = hard(features, zeros) + flattened(features, zeros)
    loss = loss + amplify_maps(features, zeros, mask, torch.ones_like(mask), torch.Generator())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(zeros.grad).all()


def test_a_saturated_gate_has_a_finite_loss_and_gradient():
    gate = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).requires_grad_()
    loss = gate_focal_loss(gate, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(gate.grad).all()
