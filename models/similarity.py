"""Cosine similarity of two feature maps, in float32 whatever their type, from three sums over the channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

EPSILON = 1e-6  # smallest norm of a vector in a cosine; features of ReLU networks can be all zero


class FeatureSimilarity(NamedTuple):
    """The parts of every cosine of two maps (N, C, H, W): sums over the channels at each position, (N, H, W)."""

    product: Tensor  # first * second
    first: Tensor  # first * first
    second: Tensor

    def distance(self) -> Tensor:
        """1 - cosine similarity at each position, (N, H, W). A zero vector is at distance 1, with a finite gradient."""
        return 1 - self.product / (_norm(self.first) * _norm(self.second))

    def flattened_distance(self) -> Tensor:
        """1 - cosine similarity of the flattened maps, (N,)."""
        product, first, second = (values.sum(dim=(1, 2)) for values in self)
        return 1 - product / (_norm(first) * _norm(second))


def compare_features(first: Tensor, second: Tensor) -> FeatureSimilarity:
    """The sums over the channels of two feature maps (N, C, H, W), in float32 (float64 stays).

    Differentiable once. Keeps nothing but the maps themselves for the gradient, and works an image at a time on a CPU,
    so that the float32 values never leave its cache. In a graph that is exported or compiled, where the number of
    images is open and no gradient is wanted, they are plain operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        wide = torch.promote_types(first.dtype, torch.float32)
        return FeatureSimilarity(*_sums(first.to(wide), second.to(wide)))
    return FeatureSimilarity(*_ChannelSums.apply(first, second))


class _ChannelSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        pairs = zip(_chunks(first), _chunks(second), strict=True)
        return torch.cat([torch.stack(_sums(one, other)) for one, other in pairs], dim=1).unbind(0)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, by_product: Tensor, by_first: Tensor, by_second: Tensor
    ) -> tuple[Tensor | None, ...]:
        first, second = ctx.saved_tensors
        roles = zip(ctx.needs_input_grad, [(first, second), (second, first)], [by_first, by_second], strict=True)
        return tuple(_gradient(*maps, by_product, by_own) if needed else None for needed, maps, by_own in roles)


def _gradient(own: Tensor, other: Tensor, by_product: Tensor, by_own: Tensor) -> Tensor:
    """The gradient of the sums over the channels of own * other and own * own, with respect to own."""
    gradient = torch.empty_like(own)
    pieces = (_chunks(values) for values in (own, other, by_product[:, None], by_own[:, None]))
    for target, one, two, product, square in zip(gradient.split(_images_at_once(own)), *pieces, strict=True):
        target.copy_(product * two + 2 * square * one)
    return gradient


def _sums(one: Tensor, other: Tensor) -> list[Tensor]:
    return [(one * other).sum(dim=1), (one * one).sum(dim=1), (other * other).sum(dim=1)]


def _chunks(values: Tensor) -> Iterator[Tensor]:
    wide = torch.promote_types(values.dtype, torch.float32)
    return (chunk.to(wide) for chunk in values.split(_images_at_once(values)))


def _images_at_once(values: Tensor) -> int:
    return 1 if values.device.type == "cpu" else len(values)


def _norm(squares: Tensor) -> Tensor:
    return squares.clamp_min(EPSILON**2).sqrt()
