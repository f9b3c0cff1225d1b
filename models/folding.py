"""Fold batch norms that no longer learn into the convolutions before them: the same function in fewer passes."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    """The convolution before each batch norm, where each is called once and nothing else uses what is between them."""
    outputs: dict[int, tuple[Tensor, nn.Module]] = {}  # kept alive, or another tensor could get the same id
    calls: Counter[nn.Module] = Counter()
    pairs: dict[nn.BatchNorm2d, tuple[nn.Module, int]] = {}

    def after_conv(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[conv] += 1
        outputs[id(output)] = (output, conv)
        mode.uses[id(output)] = 0  # not those of a tensor that had this id before

    def before_norm(norm: nn.Module, inputs: tuple) -> None:
        calls[norm] += 1
        if id(inputs[0]) in outputs:
            pairs[norm] = (outputs[id(inputs[0])][1], id(inputs[0]))

    hooks = []
    for part in module.modules():
        if isinstance(part, CONVOLUTIONS):
            hooks.append(part.register_forward_hook(after_conv))
        elif isinstance(part, nn.BatchNorm2d):
            hooks.append(part.register_forward_pre_hook(before_norm))
    mode = _Uses()
    with mode:
        mode.count(module(example))
    for hook in hooks:
        hook.remove()
    return {
        norm: conv for norm, (conv, output) in pairs.items() if calls[norm] == calls[conv] == mode.uses[output] == 1
    }


class _Uses(TorchDispatchMode):
    """The number of operations that each tensor goes into, by id."""

    def __init__(self):
        super().__init__()
        self.uses: Counter[int] = Counter()

    def count(self, values: object) -> None:
        self.uses.update(id(value) for value in tree_leaves(values) if isinstance(value, Tensor))

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count((args, kwargs))
        return operation(*args, **(kwargs or {}))
