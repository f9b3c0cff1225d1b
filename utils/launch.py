"""From the flags of train.py to trained runs: all is checked and read first, then trained category by category."""

from __future__ import annotations

import argparse
import glob
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datasets import DataSource, open_dataset
from datasets.base import DataError, Sample
from datasets.loading import evaluation_files, hold_out, paths_of, stored_foregrounds, texture_files, training_files
from datasets.textures import find_aux_path, list_textures
from datasets.view import WHOLE, View
from models.teacher import build_teacher
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, teacher_path
from utils.cli import UsageError, pick_device
from utils.environment import code_version, environment
from utils.evaluation import TestSet
from utils.execution import PLAIN, Execution, keep_freed_memory, resolve_precision
from utils.image_store import ImageStore
from utils.interruption import Interrupted
from utils.recipes import recipe_of
from utils.report import format_published_protocol
from utils.resuming import lock_run, unfinished_run
from utils.run_log import LOG, RunLog
from utils.runs import (
    RunError,
    check_settings,
    list_seeds,
    open_run,
    published_protocol,
    remove_finished_progress,
    seed_folder,
    stage_path,
    trained_categories,
)
from utils.scoring import Scoring, score_run
from utils.selection import synthetic_test_set
from utils.training import TrainingError, TrainingSet, files_to_train, train_category


class Split(NamedTuple):
    """The samples of a category."""

    train: list[Sample]
    held_out: list[Sample]  # of the training samples, where the epoch is chosen by them
    test: list[Sample]


Samples = dict[str, Split]  # of each category
TEXTURES, HELD_OUT = ("textures",), "held out"  # groups of files; no category is a tuple
# Flags that change no result:
NOT_SETTINGS = ("output", "resume", "fg_root", "seeds", "cache", "cache_dir", "cache_features")


def train(args: argparse.Namespace) -> None:
    """Train what the flags of train.py ask for; whatever can go wrong early does so before anything is written.

    Exits with status 1 if a category could not be trained.
    """
    if args.method != "aand" and args.recipe != "published":
        raise UsageError(f"--recipe {args.recipe} is one of --method aand, not of {args.method}")
    device = pick_device(args.device)
    execution = plan_execution(args, device)
    source = open_dataset(args.data_root, args.dataset, args.categories)
    synthetic = args.method == "aand" or args.select == "synthetic"
    if synthetic and not args.aux_path:
        args.aux_path = str(find_aux_path(args.data_root))
    run = args.output or choose_folder(args, source)
    runs = plan_runs(run, args)
    with ExitStack() as locks:
        for folder in dict.fromkeys([run, *runs]):
            locks.enter_context(lock_run(folder))
        for folder, seed_args in runs.items():
            check_settings(folder, make_settings(seed_args, source), other_seeds(folder, args))
        textures = list_textures(args.aux_path) if synthetic else []
        build_teacher(args.backbone, args.weights)  # fails early if it cannot
        samples = {category: split_samples(source, category, args) for category in source.categories}
        check_batches(samples, args)
        training_set = read_data(source, samples, textures, args)  # last: it reads every file
        train_runs(run, runs, source, samples, training_set, device, execution, args)


def train_runs(
    run: Path, runs: Mapping[Path, argparse.Namespace], source: DataSource, samples: Samples,
    training_set: Callable[[str], TrainingSet], device: torch.device, execution: Execution, args: argparse.Namespace,
) -> None:  # fmt: skip
    """Train every seed, and score several; SystemExit if a category failed."""
    failed = []
    try:
        for folder, seed_args in runs.items():
            failed += train_run(folder, source, training_set, device, execution, seed_args)
    except Interrupted:
        print(f"go on with: python train.py --resume {run}", file=sys.stderr)
        raise
    if args.seeds:
        score_seeds(run, source, samples, device, args)
    elif not failed:
        RunLog(run).say(f"done; score it with: python test.py --data_root {args.data_root} --run {run}")
    if failed:
        print(f"error: not trained: {', '.join(failed)}; see above, or log.txt in {run}", file=sys.stderr)
        sys.exit(1)


def choose_folder(args: argparse.Namespace, source: DataSource) -> Path:
    """The folder of a run without --output: that of the same command if it is not finished, otherwise a new one."""
    name = f"{source.name}-{args.method}-{args.backbone.replace(':', '-').replace('/', '-')}"
    unfinished = unfinished_run(f"{glob.escape(name)}-*", make_settings(args, source), args.seeds or ())
    if unfinished:
        print(f"going on with the unfinished {unfinished}; --output starts a new run", file=sys.stderr)
    return unfinished or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def other_seeds(folder: Path, args: argparse.Namespace) -> list[Path]:
    """The folders of a run's other seeds."""
    return [other for other in list_seeds(folder.parent) if other != folder] if args.seeds else []


def plan_execution(args: argparse.Namespace, device: torch.device) -> Execution:
    """How to compute; "auto" in the flags gives way to what it means here, and --plain switches off what it names."""
    if args.deterministic and device.type == "cuda":  # on a CPU all is deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if args.plain:
        args.precision, args.cache, args.cache_features, args.compile = "fp32", "none", "off", False
        return PLAIN
    keep_freed_memory()
    args.precision = resolve_precision(args.precision, device)
    return Execution(args.precision, compile=args.compile)


def plan_runs(run: Path, args: argparse.Namespace) -> dict[Path, argparse.Namespace]:
    """The run folder of each seed, and its arguments."""
    if not args.seeds:
        return {run: args}
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, args.seeds))}: each seed only once")
    return {seed_folder(run, seed): argparse.Namespace(**vars(args) | {"seed": seed}) for seed in args.seeds}


def split_samples(source: DataSource, category: str, args: argparse.Namespace) -> Split:
    """A category's samples, a share of the training samples held out where --select asks for it."""
    train, test = source.samples(category, "train"), source.samples(category, "test")
    if args.select == "last":
        return Split(train, [], test)
    try:
        return Split(*hold_out(train, args.holdout), test)
    except DataError as error:
        raise UsageError(f"--select synthetic --holdout {args.holdout}: {category}: {error}") from error


def read_data(
    source: DataSource, samples: Samples, textures: list[Path], args: argparse.Namespace
) -> Callable[[str], TrainingSet]:
    """Read every file, those of the test set too, so that a broken one is an error now and not hours later; returns the
    training set of a category."""
    store = ImageStore(args.image_size, args.workers, args.cache, args.cache_dir)
    views = find_views(store, source, samples, args)
    groups = {TEXTURES: [texture_files(textures)]}
    groups |= {c: [files_to_train(split.train, source.name, c, args, views[c])] for c, split in samples.items()}
    groups |= {
        (HELD_OUT, c): [training_files(paths_of(split.held_out), source.name, c, args.fg_root, views[c])]
        for c, split in samples.items()
    }
    tests = {("test", c): evaluation_files(split.test, views[c]) for c, split in samples.items()}
    if args.eval_every:
        stacks = store.open(groups | tests)
    else:
        stacks = store.open(groups, unused=[files for group in tests.values() for files in group])

    textures_read = stacks(TEXTURES)  # once, not in each category's turn

    def training_set(category: str) -> TrainingSet:
        split, view = samples[category], views[category]
        paths = paths_of(split.train)
        [images], [held_out] = stacks(category), stacks((HELD_OUT, category))
        test_set = None
        if args.eval_every and split.test:
            test_set = TestSet.of(split.test, stacks(("test", category)), view)
        validation = synthetic_test_set(held_out, *textures_read) if split.held_out else None
        if args.method != "aand":
            return TrainingSet(images, paths, test_set=test_set, validation=validation)
        made = len(paths) - len(stored_foregrounds(paths, source.name, category, args.fg_root))
        return TrainingSet(images, paths, *textures_read, made, view, test_set, validation)

    return training_set


def find_views(
    store: ImageStore, source: DataSource, samples: Samples, args: argparse.Namespace
) -> dict[str, View]:
    """What the models are shown of each category, by its training images."""
    recipe = recipe_of(args.method, args.recipe)
    if not recipe.own_view:
        return dict.fromkeys(samples, WHOLE)
    stacks = store.open({c: [files_to_train(split.train, source.name, c, args)] for c, split in samples.items()})
    return {category: View.of(*stacks(category), crop=recipe.crop, stretch=recipe.stretch) for category in samples}


def train_run(
    run: Path, source: DataSource, training_set: Callable[[str], TrainingSet], device: torch.device,
    execution: Execution, args: argparse.Namespace,
) -> list[str]:  # fmt: skip
    """Train every category with one seed; returns those that failed, which keep no other from being trained.

    Raises OSError where the run folder cannot be written.
    """
    settings = make_settings(args, source)
    open_run(run, settings, other_seeds(run, args))
    torch.manual_seed(args.seed)  # for --weights random
    pretrained = build_teacher(args.backbone, args.weights).to(device)
    if teacher_path(run).is_file():  # a run that goes on keeps its teacher
        load_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings)
    else:
        save_checkpoint(teacher_path(run), {"trunk": pretrained.trunk}, settings, seconds=0.0)
    execution.prepare_teacher(pretrained)
    log = RunLog(run)
    log.say(f"{args.method}, {args.backbone}, {source.name} in {source.root}, on {device}; run folder {run}")
    if source.missing:
        log.say(f"not on disk, skipped: {', '.join(source.missing)}")
    failed = []
    for category in source.categories:
        remove_finished_progress(run, category)
        if stage_path(run, category, 2).is_file():
            log.say(f"{category}: already trained, skipped")
            continue
        try:
            train_category(category, training_set(category), pretrained, args, settings, execution, log)
        except OSError:  # the next would fail too
            raise
        except Exception as error:  # whatever it is, it must not cost the others hours
            failed.append(category)
            log.note(traceback.format_exc())
            log.say(f"{category} failed: {describe(error)}")
    chosen = published_protocol(run)
    if chosen:
        log.say(format_published_protocol([chosen]))
    return failed


def describe(error: Exception) -> str:
    """An error in words; of one that is not ours with its type, as its traceback in log.txt begins."""
    expected = isinstance(error, DataError | RunError | CheckpointError | TrainingError)
    return str(error) if expected else f"{type(error).__name__}: {error} (traceback in {LOG})"


def score_seeds(
    run: Path, source: DataSource, samples: Samples, device: torch.device, args: argparse.Namespace
) -> None:
    """Score all seeds as test.py does, those of earlier calls included."""
    trained = trained_categories(run)
    test_samples = {c: split.test for c, split in samples.items() if split.test and c in trained}
    left_out = [category for category in samples if category not in test_samples]
    if left_out:
        print(f"not scored: {', '.join(left_out)} (no test images, or not trained yet for every seed in {run})")
    if test_samples:
        how = Scoring(device, args.batch_size, args.workers, args.cache, args.cache_dir)
        print(score_run(run, test_samples, source.root, how))
        print(f"results.csv and results.json are in {run}; look at it with: python scripts/report.py {run}")


def check_batches(samples: Samples, args: argparse.Namespace) -> None:
    """UsageError for a batch of one image of 32 pixels: the student's coarsest level is then a single position, from
    which batch norm cannot learn."""
    for category, split in samples.items():
        count = len(split.train)
        if args.image_size == 32 and (count - 1) % args.batch_size == 0:
            raise UsageError(
                f"{category} has {count} images: with --batch_size {args.batch_size} the last batch is a single "
                "one, too little for --image_size 32; choose another --batch_size or a larger --image_size"
            )


def make_settings(args: argparse.Namespace, source: DataSource) -> dict[str, Any]:
    """All that config.json keeps: the flags, what they were resolved to, and when."""
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    for name in NOT_SETTINGS:
        del flags[name]
    return flags | {
        "data_root": str(source.root.resolve()),
        "dataset": source.name,
        "categories": list(source.categories),
        "command": shlex.join(["python", *sys.argv]),
        "started": datetime.now().isoformat(timespec="seconds"),
        "code": code_version(),
        "environment": environment(),
    }
