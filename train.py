"""Train AAND, or the reverse-distillation baseline: one model per category, on good images only.

    python train.py --data_root data/mvtec                          # the published settings, DTD beside the data
    python train.py --data_root data/mvtec --categories bottle cable --epochs_stage1 20 --epochs_stage2 20
    python train.py --data_root data/mvtec --method rd4ad           # the baseline
    python train.py --data_root data/mvtec --seeds 0 1 2            # three runs, scored: mean and standard deviation
    python train.py --data_root data/mine --backbone efficientnet_lite0 --aux_path builtin    # without any download

The result of a run is its last epoch: test images influence nothing here. Score it with test.py. The same command
with the same --output goes on with the categories and stages that are not finished.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets import DATASETS, DataSource, open_dataset
from datasets.base import Sample
from datasets.loading import check_foregrounds, check_readable, load_stack
from datasets.synthesis import find_aux_path, list_textures
from models.teacher import BACKBONES, build_teacher
from models.weights import WeightsError
from utils.checkpoint import METHODS, CheckpointError, load_checkpoint, save_checkpoint, teacher_path
from utils.cli import DEFAULT_WORKERS, UsageError, at_least, image_size, pick_device, positive, run_command, user_path
from utils.engine import PRECISIONS
from utils.environment import code_version, environment
from utils.report import format_published_protocol
from utils.runs import RunError, RunLog, list_seeds, open_run, published_protocol, seed_folder, trained_categories
from utils.scoring import Scoring, score_run
from utils.training import train_category


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add("--aux_path", metavar="DTD_IMAGES", help="texture images for synthetic anomalies, or 'builtin' (photographs of "
        "scikit-image); default: DTD beside the data set")  # fmt: skip
    add("--dataset", choices=["auto", *DATASETS], default="auto", help="layout of the data (auto: decided by looking)")
    add("--categories", nargs="+", metavar="NAME", help="categories to train (default: all)")
    add("--method", choices=METHODS, default="aand", help="aand, or rd4ad: plain reverse distillation (default aand)")
    add("--backbone", default="wide_resnet50_2", metavar="NAME", help=f"teacher: {', '.join(BACKBONES)} or timm:NAME "
        "(default wide_resnet50_2)")  # fmt: skip
    add("--weights", default="default", metavar="W", help="teacher's ImageNet weights: default (download), bundled "
        "(efficientnet_lite0 only), random (for tests) or the path of a state dict")  # fmt: skip
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels, a multiple of 32 (default 256)")
    add("--batch_size", type=at_least(1), default=16, metavar="N", help="images (default 16)")
    add("--epochs_stage1", type=at_least(1), default=100, metavar="N", help="epochs of the amplification (default 100)")
    add("--epochs_stage2", type=at_least(1), default=120, metavar="N", help="epochs of the student (default 120)")
    add("--lr", type=positive, default=0.005, metavar="X", help="Adam's learning rate in both stages (default 0.005)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="seed of everything random (default 0)")
    add("--seeds", type=at_least(0), nargs="+", metavar="N", help="several seeds instead of --seed, a run each in "
        "OUTPUT/seedN; scored at the end as by test.py: mean and standard deviation")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="fp32", help="arithmetic of the convolutions in training; bf16 is "
        "faster where the processor has it (default fp32)")  # fmt: skip
    add("--eval_every", type=at_least(0), default=0, metavar="K", help="log the test metrics every K epochs of Stage "
        "II; they influence nothing (default 0: never)")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (default auto)")
    add("--workers", type=at_least(0), default=DEFAULT_WORKERS, metavar="N", help="processes that make synthetic "
        f"anomalies, and threads that read files (default {DEFAULT_WORKERS})")  # fmt: skip
    add("--fg_root", type=user_path, default=Path("fg_mask"), metavar="DIR", help="foreground masks of "
        "scripts/fore_extractor.py (default fg_mask)")  # fmt: skip
    add("--output", type=user_path, metavar="DIR", help="run folder (default runs/DATASET-METHOD-BACKBONE-TIME)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = pick_device(args.device)
    source = open_dataset(args.data_root, args.dataset, args.categories)
    run = args.output or Path("runs") / default_name(args, source)
    runs = plan_runs(run, args)
    if args.method == "aand" and not args.aux_path:
        args.aux_path = str(find_aux_path(args.data_root))
    texture_paths = list_textures(args.aux_path) if args.method == "aand" else []
    build_teacher(args.backbone, args.weights)  # fails early if it cannot
    samples = check_data(source, texture_paths, args)  # last: it reads every file
    check_batches(samples, args)
    textures = load_stack(texture_paths, args.image_size, max(1, args.workers)) if texture_paths else None
    for folder, seed_args in runs.items():
        train_run(folder, source, samples, textures, device, seed_args)
    if args.seeds:
        score_seeds(run, source, samples, device, args)
    else:
        RunLog(run).say(f"done; score it with: python test.py --data_root {args.data_root} --run {run}")


def plan_runs(run: Path, args: argparse.Namespace) -> dict[Path, argparse.Namespace]:
    """The run folder of each seed, and its arguments."""
    if not args.seeds:
        return {run: args}
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, args.seeds))}: each seed only once")
    return {seed_folder(run, seed): argparse.Namespace(**vars(args) | {"seed": seed}) for seed in args.seeds}


def train_run(
    run: Path, source: DataSource, samples: dict[str, tuple[list[Sample], list[Sample]]], textures: Tensor | None,
    device: torch.device, args: argparse.Namespace,
) -> None:  # fmt: skip
    """Train every category with one seed."""
    settings = make_settings(args, source)
    open_run(run, settings, other_seeds=list_seeds(run.parent) if args.seeds else ())
    torch.manual_seed(args.seed)  # for --weights random
    pretrained = build_teacher(args.backbone, args.weights).to(device, memory_format=torch.channels_last)
    if teacher_path(run).is_file():  # a run that goes on keeps its teacher
        load_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings)
    else:
        save_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings, seconds=0.0)
    log = RunLog(run)
    log.say(f"{args.method}, {args.backbone}, {source.name} in {source.root}, on {device}; run folder {run}")
    if source.missing:
        log.say(f"not on disk, skipped: {', '.join(source.missing)}")
    for category in source.categories:
        train_category(category, samples[category], pretrained, textures, args, settings, log)
    chosen = published_protocol(run)
    if chosen:
        log.say(format_published_protocol([chosen]))


def score_seeds(
    run: Path, source: DataSource, samples: dict[str, tuple[list[Sample], list[Sample]]], device: torch.device,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Score all seeds as test.py does, those of earlier calls included."""
    trained = trained_categories(run)
    test_samples = {category: test for category, (_, test) in samples.items() if test and category in trained}
    left_out = [category for category in samples if category not in test_samples]
    if left_out:
        print(f"not scored: {', '.join(left_out)} (no test images, or not trained yet for every seed in {run})")
    if test_samples:
        how = Scoring(device, args.batch_size, max(1, args.workers))
        print(score_run(run, test_samples, source.root, how))
        print(f"results.csv and results.json are in {run}; look at it with: python scripts/report.py {run}")


def check_data(
    source: DataSource, textures: list[Path], args: argparse.Namespace
) -> dict[str, tuple[list[Sample], list[Sample]]]:
    """The training and test samples of every category, after every file was read once; DataError on any problem."""
    samples = {c: (source.samples(c, "train"), source.samples(c, "test")) for c in source.categories}
    every = [sample for train, test in samples.values() for sample in train + test]
    masks = [sample.mask_path for sample in every if sample.mask_path]
    threads = max(1, args.workers)
    check_readable([sample.image_path for sample in every] + masks + textures, threads)
    if args.method == "aand":
        for category, (train, _) in samples.items():
            check_foregrounds([s.image_path for s in train], source.name, category, args.fg_root, threads)
    return samples


def check_batches(samples: dict[str, tuple[list[Sample], list[Sample]]], args: argparse.Namespace) -> None:
    """UsageError for a batch of one image of 32 pixels: the student's coarsest level is then a single position, from
    which batch norm cannot learn."""
    for category, (train, _) in samples.items():
        if args.image_size == 32 and (len(train) - 1) % args.batch_size == 0:
            raise UsageError(
                f"{category} has {len(train)} images: with --batch_size {args.batch_size} the last batch is a single "
                "one, too little for --image_size 32; choose another --batch_size or a larger --image_size"
            )


def make_settings(args: argparse.Namespace, source: DataSource) -> dict[str, Any]:
    """All that config.json keeps: the flags, what they were resolved to, and when."""
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    del flags["output"], flags["fg_root"], flags["seeds"]
    return flags | {
        "data_root": str(source.root.resolve()),
        "dataset": source.name,
        "categories": list(source.categories),
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now().isoformat(timespec="seconds"),
        "code": code_version(),
        "environment": environment(),
    }


def default_name(args: argparse.Namespace, source: DataSource) -> str:
    backbone = args.backbone.replace(":", "-").replace("/", "-")
    return f"{source.name}-{args.method}-{backbone}-{datetime.now():%Y%m%d-%H%M%S}"


if __name__ == "__main__":
    run_command(main, WeightsError, CheckpointError, RunError)
