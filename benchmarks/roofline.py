"""What a training step must compute and move for each image, counted, and what that allows on a given accelerator.

    python benchmarks/roofline.py                                   # wide_resnet50_2 at 256 px on an H100's data sheet
    python benchmarks/roofline.py --backbone resnet18 --peak_tflops 312 --bandwidth_tbs 2.0      # an A100's

Nothing is timed. FLOPs are counted in steps on the CPU; bytes are those that every operator reads and writes, each from
memory, as without fusion; kernels are the operators called for a batch of one (larger batches are compared image by
image on a CPU, and at once on a GPU).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps import Trainer, add_step_flags
from models import BACKBONES
from utils.cli import positive
from utils.training.execution import Execution

VIEWS = ("view", "t", "transpose", "permute", "expand", "detach", "alias", "unsqueeze", "squeeze", "slice", "select",
         "split", "unbind", "as_strided", "empty", "lift_fresh", "_unsafe_view")


@dataclass(frozen=True)
class Cost:
    """Of one step."""

    flops: float
    traffic: float  # bytes
    kernels: int


class Traffic(TorchDispatchMode):
    """Counts operators, and the bytes of the tensors that they take and give."""

    def __init__(self):
        super().__init__()
        self.bytes, self.kernels = 0, 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in VIEWS:
            self.kernels += 1
            self.bytes += sum(tensor.nbytes for tensor in _tensors((args, result)))
        return result


def _tensors(values: object) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, tuple | list) else []


def count(step: Callable[[], None]) -> Cost:
    """What one call of `step` costs."""
    step()  # allocates the optimiser's state
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    return Cost(flops.get_total_flops(), traffic.bytes, traffic.kernels)


def steps(backbone: str, size: int, batch: int) -> dict[str, Callable[[], None]]:
    """A step of each stage as the trainer makes it, without making its batch."""
    trainer = Trainer(backbone, size, batch, Execution("bf16"), torch.device("cpu"), keep=True)
    anomalies, features = trainer.stage1_data(), trainer.stage2_data()
    trainer.stage1_data, trainer.stage2_data = lambda: anomalies, lambda: features
    return {"Stage I": trainer.stage1, "Stage II, kept features": trainer.stage2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="wide_resnet50_2", help="teacher (default wide_resnet50_2)")
    add_step_flags(parser)
    add("--peak_tflops", type=positive, default=989, help="dense bf16 of the accelerator (default 989, an H100 SXM's)")
    add("--bandwidth_tbs", type=positive, default=3.35, help="TB/s of its memory (default 3.35)")
    add("--launch_us", type=positive, default=6, help="microseconds that eager PyTorch takes to launch a kernel "
        "(default 6, an assumption)")
    options = parser.parse_args()
    batch = options.batch_size
    print(f"{options.backbone}, {options.image_size} px, bf16, batch {batch}; images/s that each limit allows")
    print("| stage | GFLOP an image | GB moved an image | kernels a step | by arithmetic | by memory | by launching |")
    print("|---|---|---|---|---|---|---|")
    single = steps(options.backbone, options.image_size, 1)
    for name, step in steps(options.backbone, options.image_size, batch).items():
        cost, kernels = count(step), count(single[name]).kernels
        by_flops = options.peak_tflops * 1e12 / (cost.flops / batch)
        by_bytes = options.bandwidth_tbs * 1e12 / (cost.traffic / batch)
        by_launch = batch / (kernels * options.launch_us * 1e-6)
        print(f"| {name} | {cost.flops / batch / 1e9:.1f} | {cost.traffic / batch / 1e9:.2f} | {kernels} "
              f"| {by_flops:.0f} | {by_bytes:.0f} | {by_launch:.0f} |")


if __name__ == "__main__":
    main()
