"""Train one category: its stages one after the other, each with a checkpoint at its end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.base import Sample
from datasets.loading import NormalImages, SyntheticAnomalies, load_foregrounds, load_stack, make_loader
from models.aand import AAND
from models.teacher import PretrainedTeacher
from utils.checkpoint import build_model, load_checkpoint, save_checkpoint, stage_parts, stage_path
from utils.engine import train_stage1, train_stage2
from utils.evaluation import Prediction, TestSet
from utils.runs import RunLog


def train_category(
    category: str, samples: tuple[Sequence[Sample], Sequence[Sample]], pretrained: PretrainedTeacher,
    textures: Tensor | None, args: argparse.Namespace, settings: dict[str, Any], log: RunLog,
) -> None:  # fmt: skip
    """Train the stages of a category that have no checkpoint yet; every category starts from the same seed.

    samples: (training, test); textures uint8 (T, S, S, 3) for Stage I, None where the method has none; args are the
    flags of train.py.
    """
    if stage_path(log.folder, category, 2).is_file():
        log.say(f"{category}: already trained, skipped")
        return
    train_samples, test_samples = samples
    paths = [sample.image_path for sample in train_samples]
    images = load_stack(paths, args.image_size, max(1, args.workers))  # (N, S, S, 3)
    torch.manual_seed(args.seed)
    device = pretrained.mean.device
    model = build_model(pretrained, args.method).to(device, memory_format=torch.channels_last)

    for stage, parts in stage_parts(model).items():
        path = stage_path(log.folder, category, stage)
        if path.is_file():
            load_checkpoint(path, parts, settings)
            log.say(f"{category}: stage {stage} already trained")
            continue
        started = time.perf_counter()
        if stage == 1:
            amplify(category, model, images, paths, textures, args, settings["dataset"], log)
        else:
            distil(category, model, images, test_samples, args, log)
        save_checkpoint(path, parts, settings, seconds=time.perf_counter() - started)


def amplify(
    category: str, model: AAND, images: Tensor, paths: Sequence[Path], textures: Tensor, args: argparse.Namespace,
    dataset: str, log: RunLog,
) -> None:  # fmt: skip
    """Stage I: train the amplification on synthetic anomalies."""
    threads = max(1, args.workers)
    foregrounds, made = load_foregrounds(paths, dataset, category, args.fg_root, args.image_size, threads)
    if made:
        keep = f"python scripts/fore_extractor.py --data_path {args.data_root} keeps them"
        log.say(f"{category}: {made} of {len(paths)} foreground masks made on the fly ({keep})")
    anomalies = SyntheticAnomalies(images, foregrounds, textures, args.seed)
    loader = make_loader(anomalies, args.batch_size, args.seed, args.workers)
    with log.stage(category, 1, args.epochs_stage1) as on_epoch:
        train_stage1(
            model.teacher, loader, epochs=args.epochs_stage1, lr=args.lr, seed=args.seed, precision=args.precision,
            on_epoch=on_epoch,
        )  # fmt: skip


def distil(
    category: str, model: AAND, images: Tensor, test_samples: Sequence[Sample], args: argparse.Namespace, log: RunLog
) -> None:
    """Stage II: train the student on good images; with --eval_every the test metrics are logged, and nothing more."""
    loader = make_loader(NormalImages(images), args.batch_size, args.seed, workers=0)
    epochs, amplified = args.epochs_stage2, args.method == "aand"
    test_set = None
    if args.eval_every and test_samples:
        test_set = TestSet.load(test_samples, args.image_size, max(1, args.workers))
    with log.stage(category, 2, epochs) as log_epoch:

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            if test_set and (epoch % args.eval_every == 0 or epoch == epochs):
                figures = figures | Prediction.of(model, test_set, args.batch_size).evaluate(test_set)
            log_epoch(epoch, figures)

        train_stage2(
            model, loader, epochs=epochs, lr=args.lr, precision=args.precision, on_epoch=on_epoch,
            hard_positions=amplified, schedule=amplified,
        )  # fmt: skip
