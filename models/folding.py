"""Fold batch norms that no longer learn into the convolutions before them: the same function in fewer passes.

    fold_batch_norms(trunk, torch.zeros(1, 3, 64, 64))
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@torch.no_grad()
def fold_batch_norms(module: nn.Module, example: Tensor) -> int:
    """Fold, in place, every batch norm of `module` that is fed by a convolution alone; returns how many those were.

    One forward pass of `example` shows which convolution feeds which norm, so it works for any network. A norm gives
    way to nothing, or to the activation that it holds (timm's do). Those whose convolution is also used otherwise stay.

    Raises ValueError if a batch norm is in training mode: its statistics are not fixed yet.
    """
    training = [name for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d) and part.training]
    if training:
        raise ValueError(f"{training[0]} is in training mode; call eval() before its statistics are folded")
    pairs = _find_pairs(module, example)
    names = {part: name for name, part in module.named_modules()}
    for norm, conv in pairs.items():
        transposed = isinstance(conv, nn.ConvTranspose2d)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transposed
        )
        module.set_submodule(names[norm], nn.Sequential(norm.drop, norm.act) if hasattr(norm, "act") else nn.Identity())
    return len(pairs)


def _find_pairs(module: nn.Module, example: Tensor) -> dict[nn.BatchNorm2d, nn.Module]:
    """The convolution before each batch norm, where that norm is the only one and each is called once."""
    outputs: list[tuple[Tensor, nn.Module]] = []  # kept alive, or another tensor could take a place in memory
    calls: Counter[nn.Module] = Counter()
    pairs: dict[nn.BatchNorm2d, nn.Module] = {}

    def after_conv(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[conv] += 1
        outputs.append((output, conv))

    def before_norm(norm: nn.Module, inputs: tuple) -> None:
        calls[norm] += 1
        for output, conv in outputs:
            if output is inputs[0]:
                pairs[norm] = conv

    hooks = []
    for part in module.modules():
        if isinstance(part, CONVOLUTIONS):
            hooks.append(part.register_forward_hook(after_conv))
        elif isinstance(part, nn.BatchNorm2d):
            hooks.append(part.register_forward_pre_hook(before_norm))
    module(example)
    for hook in hooks:
        hook.remove()
    used = Counter(pairs.values())
    return {norm: conv for norm, conv in pairs.items() if calls[norm] == calls[conv] == used[conv] == 1}
