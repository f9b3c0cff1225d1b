"""What each part of the fast training is worth: a step of both stages with one part switched off at a time.

    python benchmarks/ablation.py                                   # wide_resnet50_2, 256 px, batch 16
    python benchmarks/ablation.py --backbone resnet18 --compile     # also with torch.compile, and its warm-up

All variants are timed in turns in one process; medians.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.steps import Trainer, add_step_flags, median, time_in_turns
from models import BACKBONES
from utils.cli import at_least
from utils.system.device import pick_device, resolve_precision
from utils.system.environment import environment
from utils.system.memory import keep_freed_memory
from utils.training.execution import PLAIN, Execution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="wide_resnet50_2", help="teacher (default wide_resnet50_2)")
    add_step_flags(parser)
    add("--repetitions", type=at_least(1), default=3, help="timed steps of each variant and stage (default 3)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    add("--compile", action="store_true", help="also torch.compile, with the seconds of its first steps")
    options = parser.parse_args()
    keep_freed_memory()
    device = pick_device(options.device)
    fast = Execution(resolve_precision("auto", device))
    variants = {
        "all of it": fast,
        "fp32": replace(fast, precision="fp32"),
        "NCHW layout": replace(fast, channels_last=False),
        "norms of the trunk not folded": replace(fast, fold_norms=False),
        "Adam not fused": replace(fast, fused_optimizer=False),
        "features computed anew": fast,
        "none of it (--plain)": PLAIN,
    } | ({"torch.compile": replace(fast, compile=True)} if options.compile else {})
    kept = {name: name not in ("features computed anew", "none of it (--plain)") for name in variants}
    shape = options.image_size, options.batch_size
    trainers = {n: Trainer(options.backbone, *shape, how, device, kept[n]) for n, how in variants.items()}
    if options.compile:
        start = time.perf_counter()
        trainers["torch.compile"].stage1()
        trainers["torch.compile"].stage2()
        print(f"torch.compile: the first step of both stages takes {time.perf_counter() - start:.0f} s")
    print(environment(), f"{torch.get_num_threads()} threads, {device}")
    print(f"{options.backbone}, {options.image_size} px, batch {options.batch_size}: images/s (share of all of it)")
    print("| switched off | Stage I | Stage II |\n|---|---|---|")
    first = time_in_turns({name: trainer.stage1 for name, trainer in trainers.items()}, options.repetitions, device)
    second = time_in_turns({name: trainer.stage2 for name, trainer in trainers.items()}, options.repetitions, device)
    for name in variants:
        cells = []
        for seconds in (first, second):
            share = median(seconds["all of it"]) / median(seconds[name])
            cells.append(f"{options.batch_size / median(seconds[name]):.2f} ({share:.0%})")
        print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
