"""What a step computes, counted, and the fastest that this machine computes it: plain convolutions of a trunk's shapes.

    limit = ConvolutionLimit("wide_resnet50_2", size=256, batch=16, dtype=torch.bfloat16, device=device)
    limit()                                  # one pass over all shapes, to be timed; limit.flops says what it computes
    flops = count_flops(step)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.teacher import build_teacher


@dataclass(frozen=True)
class Convolution:
    """A stride-1 convolution that keeps the size of its input."""

    channels_in: int
    channels_out: int
    kernel: int
    height: int
    width: int

    @property
    def flops(self) -> int:
        """Of one image: a multiplication and an addition for each weight and position."""
        return 2 * self.channels_in * self.channels_out * self.kernel**2 * self.height * self.width


def trunk_convolutions(backbone: str, size: int) -> list[Convolution]:
    """The different stride-1, ungrouped 3x3 and 1x1 convolutions of a teacher's trunk for images of `size` pixels."""
    found: dict[Convolution, None] = {}

    def note(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        if conv.stride == (1, 1) and conv.groups == 1 and conv.kernel_size in ((1, 1), (3, 3)):
            shape = Convolution(conv.in_channels, conv.out_channels, conv.kernel_size[0], *output.shape[-2:])
            found[shape] = None

    with torch.device("meta"):  # shapes alone: nothing is computed
        trunk = build_teacher(backbone, "random").trunk
        for part in trunk.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(note)
        trunk(torch.empty(1, 3, size, size))
    return list(found)


class ConvolutionLimit:
    """F.conv2d over a trunk's shapes, channels last, one after the other."""

    def __init__(self, backbone: str, size: int, batch: int, dtype: torch.dtype, device: torch.device):
        shapes = trunk_convolutions(backbone, size)
        self.flops = batch * sum(shape.flops for shape in shapes)
        self.pairs = [(shape.kernel, *self._tensors(shape, batch, dtype, device)) for shape in shapes]

    @staticmethod
    def _tensors(shape: Convolution, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        images = torch.randn(batch, shape.channels_in, shape.height, shape.width, device=device)
        weight = torch.randn(shape.channels_out, shape.channels_in, shape.kernel, shape.kernel, device=device)
        return tuple(tensor.to(dtype, memory_format=torch.channels_last) for tensor in (images, weight))

    @torch.inference_mode()
    def __call__(self) -> None:
        for kernel, images, weight in self.pairs:
            F.conv2d(images, weight, padding=kernel // 2)


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of one call: of its convolutions and matrix products, forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
