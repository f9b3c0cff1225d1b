"""Batch norms of a network that several processes train, each with its share of a batch: normalised by the whole
batch with train.py --sync_norms, otherwise by the share, whose running statistics then become means over the shares.

torch's own SyncBatchNorm needs CUDA, and does not take an empty share in bfloat16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from utils.system.processes import World

POSITIONS = (0, 2, 3)  # of (N, C, H, W) all but the channels


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm with the statistics of the whole batch (N, C, H, W), of which this process has a share, maybe none.

    Its running statistics are the same in all processes.
    """

    def __init__(self, norm: nn.BatchNorm2d, world: World):
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.world = world
        self.to(norm.weight).load_state_dict(norm.state_dict())

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        output, mean, variance, count = _Normalise.apply(features, self.weight, self.bias, self.eps, self.world)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return output


def synchronise_norms(module: nn.Module, world: World) -> None:
    """Put a SharedBatchNorm2d in each batch norm's place; nothing is done for a single process."""
    if world.size == 1:
        return
    for name, part in list(module.named_children()):
        if isinstance(part, nn.BatchNorm2d):
            setattr(module, name, SharedBatchNorm2d(part, world))
        else:
            synchronise_norms(part, world)


def running_statistics(*modules: nn.Module) -> list[Tensor]:
    """The means and variances of the batch norms that know nothing of other processes."""
    norms = [part for module in modules for part in module.modules() if type(part) is nn.BatchNorm2d]
    return [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]


class _Normalise(torch.autograd.Function):
    """Features (N, C, H, W) normalised over all processes; also mean and variance (C,), and the number of positions
    (1,) that they are of. One message forward, one backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, features: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        positions, channels = features.numel() // features.shape[1], features.shape[1]
        sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=features.device)  # or squares would cancel
        if positions:
            variance, mean = (m.double() for m in torch.var_mean(_widen(features), POSITIONS, correction=0))
            sums += positions * torch.cat([mean, variance + mean.square(), mean.new_ones(1)])
        mean, square, count = world.all_reduce(sums).split([channels, channels, 1])
        mean, variance = mean / count, square / count - (mean / count).square()
        mean, variance, count = (statistic.to(weight.dtype) for statistic in (mean, variance, count))
        ctx.save_for_backward(features, weight, mean, (variance + eps).rsqrt(), count)
        ctx.world = world
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(features, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, by_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, inverse, count = ctx.saved_tensors
        mean, scale = mean[:, None, None], inverse[:, None, None]
        by_output, normalised = _widen(by_output), (_widen(features) - mean) * scale
        by_bias, by_weight = by_output.sum(POSITIONS), (by_output * normalised).sum(POSITIONS)
        summed = ctx.world.all_reduce(torch.stack([by_bias, by_weight]))
        along_mean, along_scale = summed[..., None, None] / count  # (C, 1, 1)
        by_features = (by_output - along_mean - normalised * along_scale) * (scale * weight[:, None, None])
        return by_features.to(features.dtype), by_weight, by_bias, None, None


def _widen(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
