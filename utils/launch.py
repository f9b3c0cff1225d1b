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
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from datasets import DataSource, open_dataset
from datasets.base import DataError
from datasets.names import printable
from datasets.pairing import SPLITS
from datasets.textures import find_aux_path, list_textures
from models.teacher import build_teacher
from utils.advice import command, what_next
from utils.checkpoint import keep_teacher
from utils.cli import UsageError, pick_device
from utils.data_check import KnownLevels, levels_given
from utils.distributed import World, join, kept_by_launcher, own_device
from utils.environment import code_version, environment
from utils.execution import PLAIN, Execution, resolve_precision
from utils.interruption import Interrupted
from utils.memory import keep_freed_memory
from utils.preflight import Skipped, usable_samples
from utils.report import format_published_protocol
from utils.resuming import is_finished, lock_run, unfinished_run
from utils.run_log import LOG, RunLog
from utils.runs import (
    NOT_SETTINGS,
    CheckpointError,
    ProcessError,
    ProcessLost,
    RunError,
    check_settings,
    list_seeds,
    open_run,
    published_protocol,
    remove_finished_progress,
    seed_folder,
    trained_categories,
)
from utils.scoring import Scoring, score_run
from utils.training import TrainingError, TrainingSet, train_category
from utils.training_data import Samples, check_batches, read_data, split_samples, warn_of_shortage
from utils.training_images import keep_training_images


@dataclass(frozen=True)
class Plan:
    """What all seeds of a run share."""

    args: argparse.Namespace
    source: DataSource
    samples: Samples
    skipped: Skipped
    levels: KnownLevels  # of each category
    test_errors: bool  # files of the test set that test.py will refuse
    digests: Mapping[Path, str]  # of the images
    device: torch.device
    execution: Execution

    def seen(self, category: str) -> list[str]:
        """The digests of the images that a category is trained on."""
        return [self.digests[sample.image_path] for sample in self.samples[category].train]

    def settings(self, seed: int) -> dict[str, Any]:
        """All that config.json keeps: the flags, what they were resolved to, and when."""
        flags = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self.args).items()}
        for name in NOT_SETTINGS:
            del flags[name]
        return flags | {
            "seed": seed,
            "data_root": str(self.source.root.resolve()),
            "dataset": self.source.name,
            "categories": list(self.source.categories),
            "processes": self.execution.world.size,
            "skipped": self.skipped,
            "command": shlex.join(["python", *sys.argv]),
            "started": datetime.now().isoformat(timespec="seconds"),
            "code": code_version(),
            "environment": environment(),
        }

    def what_next(self, run: Path) -> str:
        """How to go on with what was trained."""
        tested = [category for category, split in self.samples.items() if split.test]
        return what_next(run, self.args.data_root, list(self.samples), tested, self.test_errors)


def train(args: argparse.Namespace) -> None:
    """Train what the flags of train.py ask for; whatever can go wrong early does so before anything is written.

    Exits with status 1 if a category could not be trained.
    """
    with join() as world, ExitStack() as locks:
        plan = world.in_turn(lambda: make_plan(args, world))  # the first one leaves what it found of the files
        run = world.from_first(lambda: args.output or Path(kept_by_launcher("run", lambda: str(choose_folder(plan)))))
        start = world.in_turn if args.cache == "disk" else world.together
        seeds, training_set = start(lambda: prepare(run, plan, locks))
        train_seeds(run, seeds, plan, training_set)


def make_plan(args: argparse.Namespace, world: World) -> Plan:
    """Look at the flags and the data; nothing is written."""
    if args.method != "aand" and args.recipe != "published":
        raise UsageError(f"--recipe {args.recipe} is one of --method aand, not of {args.method}")
    device = pick_device(own_device(args.device, world))
    execution = replace(plan_execution(args, device), world=world)
    source = open_dataset(args.data_root, args.dataset, args.categories)
    if args.method == "aand" and not args.aux_path:
        args.aux_path = str(find_aux_path(args.data_root))
    test_needed = bool(args.eval_every or args.seeds)  # several seeds are scored at the end
    usable = usable_samples(source, SPLITS, args, levels_given(args.white_level, source.categories), test_needed)
    digests = {path: facts.digest for path, facts in usable.images.items()}
    samples = {category: split_samples(parts, category, args, digests) for category, parts in usable.samples.items()}
    return Plan(args, source, samples, usable.skipped, usable.levels, usable.test_errors, digests, device, execution)


def prepare(run: Path, plan: Plan, locks: ExitStack) -> tuple[dict[Path, int], Callable[[str], TrainingSet]]:
    """Lock the run and read the data: the run folder of each seed, and the training set of each category."""
    args = plan.args
    seeds = plan_seeds(run, args)
    for folder in dict.fromkeys([run, *seeds]) if plan.execution.world.is_first else ():
        locks.enter_context(lock_run(folder))
    for folder, seed in seeds.items():
        check_settings(folder, plan.settings(seed), other_seeds(folder, args))
    textures = list_textures(args.aux_path) if args.method == "aand" else []
    build_teacher(args.backbone, args.weights)  # fails early if it cannot
    check_batches(plan.samples, args, plan.execution.world)
    warn_of_shortage(plan.samples, args)
    return seeds, read_data(plan.source, plan.samples, plan.levels, textures, args)  # last: it reads every file


def train_seeds(
    run: Path, seeds: Mapping[Path, int], plan: Plan, training_set: Callable[[str], TrainingSet]
) -> None:
    """Train every seed, and score several; SystemExit if a category failed."""
    failed = []
    try:
        for folder, seed in seeds.items():
            failed += train_run(folder, seed, plan, training_set)
    except Interrupted:
        print(f"go on with: {command('train.py', '--resume', run)}", file=sys.stderr)
        raise
    if plan.args.seeds:
        plan.execution.world.from_first(lambda: score_seeds(run, plan))
    elif not failed:
        RunLog(run).say(f"done; {plan.what_next(run)}")
    if failed:
        print(printable(f"error: not trained: {', '.join(failed)}; see above, or {LOG} in {run}"), file=sys.stderr)
        sys.exit(1)


def choose_folder(plan: Plan) -> Path:
    """The folder of a run without --output: that of the same command if it is not finished, otherwise a new one."""
    args = plan.args
    name = f"{plan.source.name}-{args.method}-{args.backbone.replace(':', '-').replace('/', '-')}"
    unfinished = unfinished_run(f"{glob.escape(name)}-*", plan.settings(args.seed), args.seeds or ())
    if unfinished:
        print(printable(f"going on with the unfinished {unfinished}; --output starts a new run"), file=sys.stderr)
    return unfinished or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def plan_seeds(run: Path, args: argparse.Namespace) -> dict[Path, int]:
    """The run folder of each seed."""
    if not args.seeds:
        return {run: args.seed}
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds {' '.join(map(str, args.seeds))}: each seed only once")
    return {seed_folder(run, seed): seed for seed in args.seeds}


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


def train_run(run: Path, seed: int, plan: Plan, training_set: Callable[[str], TrainingSet]) -> list[str]:
    """Train every category with one seed; returns those that failed, which keep no other from being trained.

    Raises OSError where the run folder cannot be written.
    """
    args, source = argparse.Namespace(**vars(plan.args) | {"seed": seed}), plan.source
    settings, world = plan.settings(seed), plan.execution.world
    world.from_first(lambda: open_run(run, settings, other_seeds(run, args)))
    torch.manual_seed(seed)  # for --weights random
    pretrained = build_teacher(args.backbone, args.weights).to(plan.device)
    made_with = world.in_turn(lambda: keep_teacher(run, pretrained, settings))
    plan.execution.prepare_teacher(pretrained)
    log = RunLog(run, writes=world.is_first)
    where = f"{plan.device}, {world.size} processes" if world.size > 1 else plan.device
    log.say(f"{args.method}, {args.backbone}, {source.name} in {source.root}, on {where}; run folder {run}")
    if source.missing:
        log.say(f"not on disk, skipped: {', '.join(source.missing)}")
    failed = []
    for category in source.categories:
        if world.from_first(lambda category=category: look_at(run, category, settings)):
            log.say(f"{category}: already trained, skipped")
            continue
        try:
            world.from_first(lambda category=category: keep_training_images(run, category, plan.seen(category)))
            data = training_set(category)
            train_category(category, data, pretrained, args, settings, plan.execution, log, made_with)
        except (OSError, ProcessLost):  # the next would fail too
            raise
        except Exception as error:  # whatever it is, it must not cost the others hours
            if not world.all_come(f"{run} {category} failed"):
                RunLog(run).note(*traceback.format_exc().splitlines())
                raise RunError(f"{category} failed in process {world.rank} alone: {describe(error)}") from error
            failed.append(category)
            log.note(*traceback.format_exc().splitlines())
            log.say(*f"{printable(category)} failed: {describe(error)}".split("\n"))
    chosen = published_protocol(run)
    if chosen:
        log.say(*format_published_protocol([chosen]).splitlines())
    return failed


def look_at(run: Path, category: str, settings: Mapping[str, Any]) -> bool:
    """Whether a category is trained; what is left of its progress is then cleared away."""
    remove_finished_progress(run, category)
    return is_finished(run, category, settings)


def describe(error: Exception) -> str:
    """An error in words; of one that is not ours with its type, as its traceback in log.txt begins."""
    expected = isinstance(error, DataError | RunError | CheckpointError | TrainingError | ProcessError)
    return str(error) if expected else printable(f"{type(error).__name__}: {error} (traceback in {LOG})")


def score_seeds(run: Path, plan: Plan) -> None:
    """Score all seeds as test.py does, those of earlier calls included."""
    args, samples = plan.args, plan.samples
    trained = trained_categories(run)
    test_samples = {c: split.test for c, split in samples.items() if split.test and c in trained}
    left_out = [category for category in samples if category not in test_samples]
    if left_out:
        why = f"no test images, or not trained yet for every seed in {run}"
        print(printable(f"not scored: {', '.join(left_out)} ({why})"))
    if test_samples:
        how = Scoring(plan.device, args.batch_size, args.workers, args.cache, args.cache_dir, skipped=plan.skipped)
        print(score_run(run, test_samples, plan.source.root, how))
        report = command("scripts/report.py", run)
        print(f"results.csv and results.json are in {printable(run)}; look at it with: {report}")
    else:
        print(plan.what_next(run))
