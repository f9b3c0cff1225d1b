"""Cosines of feature maps from three sums: against NumPy in float64 and PyTorch's own, gradients numerically."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import similarity
from models.similarity import compare_features

SHAPE = (3, 7, 4, 5)  # N, C, H, W


def make_pair(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    return first.to(dtype), (0.5 * first + second).to(dtype)


def numpy_distance(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    norms = np.linalg.norm(first, axis=axis) * np.linalg.norm(second, axis=axis)
    return 1 - (first * second).sum(axis=axis) / norms


def test_distance_by_hand():
    first = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    second = torch.tensor([[3.0, -4.0, 1.0], [4.0, 3.0, 0.0]]).view(1, 2, 1, 3)
    compared = compare_features(first, second)
    torch.testing.assert_close(compared.distance(), torch.tensor([[[0.0, 1.0, 1 - 3 / 5]]]))
    # products 25, 0 and 3 of vectors whose squares sum up to 3 * 25 and 25 + 25 + 1
    torch.testing.assert_close(compared.flattened_distance(), torch.tensor([1 - 28 / (75 * 51) ** 0.5]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_distances_equal_numpy_and_pytorch(layout):
    first, second = make_pair()
    one, other = first.numpy().astype(np.float64), second.numpy().astype(np.float64)
    compared = compare_features(first.contiguous(memory_format=layout), second.contiguous(memory_format=layout))
    assert compared.distance().dtype == torch.float32
    np.testing.assert_allclose(compared.distance(), numpy_distance(one, other, axis=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(compared.distance(), 1 - F.cosine_similarity(first, second))
    flattened = numpy_distance(one.reshape(3, -1), other.reshape(3, -1), axis=1)
    np.testing.assert_allclose(compared.flattened_distance(), flattened, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        compared.flattened_distance(), 1 - F.cosine_similarity(first.flatten(1), second.flatten(1))
    )


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1e15])
def test_the_length_of_vectors_does_not_matter(scale):
    first, second = make_pair()
    compared, short = compare_features(first, second), compare_features(scale * first, scale * second)
    torch.testing.assert_close(short.distance(), compared.distance())
    torch.testing.assert_close(short.flattened_distance(), compared.flattened_distance())


@pytest.mark.parametrize("reduce", ["distance", "flattened_distance"])
def test_gradients_of_both_maps_are_right(reduce):
    pair = [values.requires_grad_() for values in make_pair(torch.float64)]
    assert torch.autograd.gradcheck(lambda *maps: getattr(compare_features(*maps), reduce)(), pair)


def test_gradients_equal_pytorchs():
    pair, expected = ([values.requires_grad_() for values in make_pair()] for _ in range(2))
    weights = torch.arange(60.0).view(3, 4, 5)
    (compare_features(*pair).distance() * weights).sum().backward()
    ((1 - F.cosine_similarity(*expected)) * weights).sum().backward()
    for found, right in zip(pair, expected, strict=True):
        torch.testing.assert_close(found.grad, right.grad, rtol=1e-5, atol=1e-5)


def test_zero_vectors_are_at_distance_1_with_finite_gradients():
    first, second = make_pair()
    first[0], second[1], first[2, :, 0, 0], second[2, :, 0, 0] = 0, 0, 0, 0
    pair = [first.requires_grad_(), second.requires_grad_()]
    compared = compare_features(*pair)
    assert (compared.distance()[:2] == 1).all()
    assert compared.distance()[2, 0, 0] == 1
    assert (compared.distance()[2, 1:] != 1).all()
    assert compared.flattened_distance()[:2].tolist() == [1, 1]
    (compared.distance().sum() + compared.flattened_distance().sum()).backward()
    for values in pair:
        assert values.grad.isfinite().all()
        assert values.grad[2, :, 1:].any()


def test_bfloat16_is_computed_in_float32():
    first, second = (values.requires_grad_() for values in make_pair(torch.bfloat16))
    compared = compare_features(first, second)
    exact = numpy_distance(*(values.detach().double().numpy() for values in (first, second)), axis=1)
    assert compared.distance().dtype == compared.flattened_distance().dtype == torch.float32
    np.testing.assert_allclose(compared.distance().detach(), exact, rtol=0, atol=1e-6)  # bfloat16 itself has 4e-3
    compared.distance().sum().backward()
    wide = [values.detach().double().requires_grad_() for values in (first, second)]
    (1 - F.cosine_similarity(*wide)).sum().backward()
    for values, expected in zip((first, second), wide, strict=True):
        assert values.grad.dtype == torch.bfloat16
        torch.testing.assert_close(values.grad.double(), expected.grad, rtol=2**-8, atol=1e-6)  # rounded once


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_only_needed_gradients_are_computed(monkeypatch, needed):
    computed = []
    compute = similarity._gradient
    monkeypatch.setattr(similarity, "_gradient", lambda own, *rest: computed.append(own) or compute(own, *rest))
    pair = [values.requires_grad_(need) for values, need in zip(make_pair(), needed, strict=True)]
    compare_features(*pair).distance().sum().backward()
    assert len(computed) == sum(needed)
    for values, need in zip(pair, needed, strict=True):
        assert (values.grad is not None) == need
