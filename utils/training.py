"""Train one category: its stages one after the other, each with a checkpoint at its end."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.base import Sample
from datasets.loading import Files, SyntheticAnomalies, epoch_batches, image_files, paths_of, training_files
from datasets.names import PrintableError
from datasets.view import WHOLE, View
from models.aand import AAND
from models.teacher import PretrainedTeacher
from utils.advice import command
from utils.average import NonFiniteLoss
from utils.checkpoint import (
    MadeWith,
    build_model,
    load_checkpoint,
    save_checkpoint,
    stage_parts,
    stage_path,
    state_of,
)
from utils.detector import calibrate_detector, load_detector
from utils.engine import calibrate, train_stage1, train_stage2
from utils.evaluation import Prediction, TestSet
from utils.execution import Execution, near
from utils.features import TeacherFeatures
from utils.image_store import Stack
from utils.interruption import stop_between_steps
from utils.norms import synchronise_norms
from utils.progress import MADE_WITH, Progress
from utils.recipes import recipe_of
from utils.run_log import RunLog
from utils.runs import keep_view, progress_path, read_view, view_path
from utils.thresholds import HELD_OUT, write_thresholds


class TrainingError(PrintableError, RuntimeError):
    """A category that cannot be trained; the message says which, why, and what may help."""


@dataclass(frozen=True)
class TrainingSet:
    """The decoded data of a category: images uint8 (N, S, S, 3), for Stage I with their foregrounds, (N, S, S, 4), and
    textures uint8 (T, 3, S, S); the test set where its metrics are to be logged."""

    images: Stack
    paths: Sequence[Path]  # of the images
    textures: Stack | None = None
    made: int = 0  # foregrounds that had to be made on the fly
    view: View = WHOLE  # of what the images show
    test_set: TestSet | None = None
    calibration: Stack | None = None  # good images (M, S, S, 3) kept out of training, as the view shows them
    calibration_paths: Sequence[Path] = ()


def files_to_train(
    samples: Sequence[Sample], dataset: str, category: str, args: argparse.Namespace, view: View = WHOLE
) -> Files:
    """What is read of a category's training samples."""
    paths = paths_of(samples)
    if args.method != "aand":
        return image_files(paths, view)
    return training_files(paths, dataset, category, args.fg_root, view)


def train_category(
    category: str, data: TrainingSet, pretrained: PretrainedTeacher, args: argparse.Namespace,
    settings: dict[str, Any], execution: Execution, log: RunLog, made_with: MadeWith,
) -> None:
    """Train the stages of a category that have no checkpoint yet, from where an earlier process left them; every
    category starts from the same seed.

    `pretrained` is prepared for `execution`; args are the flags of train.py; made_with is of `keep_teacher`. Raises
    TrainingError where a loss is no number.
    """
    torch.manual_seed(args.seed)
    recipe, world = recipe_of(args.method, args.recipe), execution.world
    world.from_first(lambda: keep_view(log.folder, category, data.view))
    view = world.together(lambda: read_view(log.folder, category))
    made_with = {**made_with, view_path(log.folder, category).name: view.word}
    model = build_model(pretrained, args.method, recipe.calibrated).to(pretrained.mean.device)
    if args.sync_norms:
        synchronise_norms(model.bottleneck, world)
        synchronise_norms(model.decoder, world)
    execution.prepare(model)
    for stage, parts in stage_parts(model).items():
        path = stage_path(log.folder, category, stage)
        if path.is_file():
            load_checkpoint(path, parts, settings, category, made_with)
            log.say(f"{category}: stage {stage} already trained")
            made_with = {**made_with, path.name: state_of(parts)}
            continue
        with stop_between_steps() as check:
            identity = {"category": category, "stage": stage, "training images": digest(data.paths)}
            identity |= {f"{MADE_WITH} {name}": now for name, now in made_with.items()}
            progress = Progress(progress_path(log.folder, category, stage), parts, identity, check, world)
            train_stage(category, stage, model, data, args, execution, log, progress)
            world.wait()  # a process may not yet have looked for the files that are about to change
        if world.is_first:
            save_checkpoint(path, parts, settings, progress.seconds, category, made_with)
        progress.remove()
        made_with = {**made_with, path.name: state_of(parts)}
    if args.calibration and world.is_first:
        set_thresholds(category, data, args, model.pretrained.mean.device, log)


def set_thresholds(
    category: str, data: TrainingSet, args: argparse.Namespace, device: torch.device, log: RunLog
) -> None:
    """Set the thresholds of a category by its images kept out of training, with the model as its files have it."""
    detector = load_detector(log.folder, category, device=device, batch_size=args.batch_size, with_thresholds=False)
    images = data.calibration
    parts = (images[start : start + args.batch_size].numpy() for start in range(0, len(images), args.batch_size))
    thresholds = calibrate_detector(detector, parts, args.far, HELD_OUT, data.calibration_paths)
    write_thresholds(log.folder, category, thresholds)
    log.say(f"{category}: {thresholds}")


def train_stage(
    category: str, stage: int, model: AAND, data: TrainingSet, args: argparse.Namespace, execution: Execution,
    log: RunLog, progress: Progress,
) -> None:
    """Train one stage from where `progress` is; the log forgets what it knows of what comes now."""
    log.rewind(category, stage, progress.epoch)
    if progress.resumed:
        log.say(f"{category}: stage {stage} goes on in epoch {progress.epoch}, step {progress.step + 1}")
    train = amplify if stage == 1 else distil
    try:
        train(category, model, data, args, execution, log, progress)
    except NonFiniteLoss as error:
        batches = list(epoch_batches(len(data.paths), args.batch_size, args.seed, progress.epoch))
        images = [str(data.paths[place]) for place in batches[error.step].tolist()]
        raise TrainingError(
            f"{category}: the loss of stage {stage} became {error.value} in epoch {progress.epoch}, step "
            f"{error.step + 1}; a lower --lr or --precision fp32 may help. What was saved before is kept. The images "
            "of this step:",
            *images,
        ) from error


def digest(paths: Sequence[Path]) -> str:
    """Names and sizes of files in their order, as one word."""
    listing = [f"{path.name} {path.stat().st_size}" for path in paths]
    return hashlib.sha256("\n".join(listing).encode(errors="surrogateescape")).hexdigest()[:16]


def amplify(
    category: str, model: AAND, data: TrainingSet, args: argparse.Namespace, execution: Execution, log: RunLog,
    progress: Progress,
) -> None:
    """Stage I: train the amplification on synthetic anomalies."""
    if data.made:
        where = ["--data_path", args.data_root, "--dataset", args.dataset, "--output", args.fg_root]
        keep = f"{command('scripts/fore_extractor.py', *where)} keeps them"
        log.say(f"{category}: {data.made} of {len(data.images)} foreground masks made on the fly ({keep})")
    device = model.pretrained.mean.device
    anomalies = SyntheticAnomalies(
        near(data.images, device), near(data.textures, device), batch_size=args.batch_size, seed=args.seed,
        device=device, share=execution.world.share,
    )
    with log.stage(category, 1, args.epochs_stage1, progress.epoch) as on_epoch:
        train_stage1(
            model.teacher, anomalies, epochs=args.epochs_stage1, lr=args.lr, seed=args.seed, execution=execution,
            on_epoch=on_epoch, progress=progress,
        )


def distil(
    category: str, model: AAND, data: TrainingSet, args: argparse.Namespace, execution: Execution, log: RunLog,
    progress: Progress,
) -> None:
    """Stage II: train the student on good images; with --eval_every the test metrics are logged, and nothing more."""
    epochs, recipe = args.epochs_stage2, recipe_of(args.method, args.recipe)
    features = TeacherFeatures(model, data.images, batch_size=args.batch_size, seed=args.seed, execution=execution)
    keep = args.cache_features
    if progress.resumed:  # the same as before, whatever fits now: a batch's size changes how its features are rounded
        keep = "on" if progress.notes.get("features kept") else "off"
    log.say(f"{category}: {features.keep(keep, args.cache, args.cache_dir)}")
    progress.notes["features kept"] = features.kept is not None
    with log.stage(category, 2, epochs, progress.epoch) as log_epoch:

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            tested = bool(data.test_set) and (epoch % args.eval_every == 0 or epoch == epochs)
            if recipe.calibrated and (tested or epoch == epochs):
                calibrate(model, features, execution)
            if tested:
                figures = figures | Prediction.metrics(model, data.test_set, args.batch_size, execution.world)
            log_epoch(epoch, figures)

        train_stage2(
            model, features, epochs=epochs, lr=args.lr, execution=execution, on_epoch=on_epoch, recipe=recipe,
            progress=progress,
        )
