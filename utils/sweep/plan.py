"""What a sweep consists of: one task for each data set, category, method and seed, the costliest first."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from datasets import DataSource, open_dataset
from datasets.base import DataError
from datasets.names import misfit_of, printable
from models.recipes import METHODS
from utils.runs.settings import EARLIER, FREE_SETTINGS, NOT_SETTINGS, setting_differences
from utils.sweep.attempts import Content
from utils.sweep.schedule import Job, duration, list_schedule, lower_bound
from utils.sweep.store import Store
from utils.system.errors import UsageError

OF_A_TASK = ("data_root", "categories", "method", "seed")  # flags of train.py that the sweep sets for each task
REFUSED = ("seeds", "output", "resume", "help")  # those that it has no use for
SETTINGS = "sweep.json"


@dataclass(frozen=True)
class Task:
    """One category, trained and scored with one method and seed.

    flags: the others of train.py; scoring: those of test.py. image_epochs: training images times epochs of all stages.
    """

    data_root: str
    dataset: str  # the last part of data_root
    category: str
    method: str
    seed: int
    image_epochs: int
    flags: tuple[str, ...]
    scoring: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its name, and its place in the store."""
        return f"{self.dataset}/{self.method}/seed{self.seed}/{self.category}"

    def commands(self, run: Path) -> list[list[str]]:
        """train.py and test.py as one would call them by hand."""
        own = [f"--categories={self.category}", "--method", self.method, "--seed", str(self.seed)]  # -x is a name too
        return [
            ["train.py", "--data_root", self.data_root, *own, *self.flags, "--output", str(run)],
            ["test.py", "--data_root", self.data_root, "--run", str(run), *self.scoring],
        ]


@dataclass(frozen=True)
class Plan:
    tasks: Sequence[Task]  # the costliest first
    methods: Sequence[str]
    settings: Mapping[str, Any]  # flags of train.py that change results, the same for all tasks
    data_roots: Mapping[str, str]  # by the name of the data set


def make_plan(
    parser: argparse.ArgumentParser, flags: Sequence[str], data_roots: Sequence[Path],
    categories: Sequence[str] | None, methods: Sequence[str], seeds: Sequence[int],
) -> Plan:
    """Every combination of what is given; categories: None for all.

    parser: of train.py, by which `flags` are checked; it ends the program where they are wrong. Raises UsageError for a
    combination that cannot be, DataError for data sets that cannot be used.
    """
    given = {flag.partition("=")[0] for flag in flags}
    for name in (*OF_A_TASK, *REFUSED):
        if f"--{name}" in given:
            raise UsageError(f"--{name} of train.py cannot be passed on: a sweep sets it for each task")
    args = parser.parse_args(["--data_root", ".", *flags])
    if lacking := [method for method in methods if args.recipe not in METHODS[method]]:
        raise UsageError(f"`recipe` {args.recipe}: there is none for `methods` {', '.join(lacking)}")
    roots = {root.resolve().name: str(root.resolve()) for root in data_roots}
    if len(roots) < len(data_roots):
        raise UsageError(f"--data_root: tasks are named after the folders, whose names must differ: {', '.join(roots)}")
    for name in roots:
        if reason := misfit_of(name):
            raise UsageError(f"--data_root: no data set can be called {printable(name)!r}: {reason}")
    scoring = scoring_flags(parser, args)
    methods = list(dict.fromkeys(methods))
    sources = {name: open_dataset(root, args.dataset) for name, root in roots.items()}
    known = {category for source in sources.values() for category in source.categories}
    unknown = [category for category in categories or [] if category not in known]
    if unknown:
        raise UsageError(f"--categories: none of the data sets has {', '.join(unknown)}")
    tasks = []
    for name, source in sources.items():
        for category in (c for c in source.categories if categories is None or c in categories):
            images = count_images(source, category)
            for method, seed in product(methods, dict.fromkeys(seeds)):
                first = args.epochs_stage1 if METHODS[method][args.recipe].amplified else 0
                epochs = first + args.epochs_stage2
                tasks.append(Task(roots[name], name, category, method, seed, images * epochs, tuple(flags), scoring))
    free = (*FREE_SETTINGS, *NOT_SETTINGS, *OF_A_TASK)
    settings = {name: value for name, value in vars(args).items() if name not in free}
    return Plan(sorted(tasks, key=lambda task: (-task.image_epochs, task.key)), methods, settings, roots)


def count_images(source: DataSource, category: str) -> int:
    """Of training; 0 where there are none, of which train.py will say more."""
    try:
        return len(source.list_samples(category, "train")[0])
    except DataError:
        return 0


def scoring_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, ...]:
    """The flags of test.py that mean what they mean to train.py, as far as they were given."""
    common = {name: vars(args)[name] for name in ("device", "workers", "cache", "cache_dir")}
    given = [f"--{name}={value}" for name, value in common.items() if value != parser.get_default(name)]
    return tuple(given + ["--skip_bad"] * args.skip_bad)


def check_settings(store: Store, plan: Plan, keep: bool = True) -> None:
    """Whether a store is of the same sweep, or of none yet; `keep` writes down of which it is.

    Raises UsageError listing the differences.
    """
    found = store.read_json(SETTINGS)
    before = found or {"settings": plan.settings, "data_roots": {}}
    foreign = found is None and store.names(SETTINGS)
    if foreign or not all(isinstance(before.get(part), dict) for part in ("settings", "data_roots")):
        raise UsageError(f"{store.shown(SETTINGS)} is not of a sweep; choose another --store")
    roots = {**plan.data_roots, **before["data_roots"]}
    differences = setting_differences(EARLIER | before["settings"], plan.settings)
    differences += _differences(roots, {**roots, **plan.data_roots})
    if differences:
        raise UsageError(
            f"{store.shown()} holds a sweep with other settings ({'; '.join(differences)}); choose another --store"
        )
    if keep:
        store.write_json(SETTINGS, {"settings": plan.settings, "data_roots": roots})


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*before, *now])
    return [f"{name}: {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]


class Estimate:
    """Seconds of tasks: image-epochs times the seconds of one, per method as finished tasks took, or as given.

    given: seconds of an image-epoch where no task of the method is finished; without it those of all finished tasks.
    """

    def __init__(self, given: float | None = None):
        self.given = given
        self.taken: dict[str, tuple[float, int]] = {}  # by method: seconds, image-epochs

    def add(self, method: str, seconds: float, image_epochs: int) -> None:
        """A finished task."""
        before = self.taken.get(method, (0.0, 0))
        self.taken[method] = before[0] + seconds, before[1] + image_epochs

    def rate(self, method: str) -> float | None:
        """Seconds of an image-epoch; None if nothing is known."""
        seconds, image_epochs = self.taken.get(method, (0.0, 0))
        if not image_epochs and self.given is None:
            seconds, image_epochs = (sum(values) for values in zip((0.0, 0), *self.taken.values(), strict=False))
        return seconds / image_epochs if image_epochs else self.given

    def of(self, task: Task) -> float | None:
        rate = self.rate(task.method)
        return None if rate is None else rate * task.image_epochs


def format_plan(plan: Plan, finished: Mapping[str, Content], estimate: Estimate, slots: int) -> str:
    """The tasks in their order, and what is to be expected of them on so many slots."""
    lines, remaining = [], []
    for number, task in enumerate(plan.tasks):
        seconds = estimate.of(task)
        state = "finished" if task.key in finished else duration(seconds) if seconds is not None else "unknown"
        lines.append(f"{number:>4}  {task.key:<40}  {task.image_epochs:>9} image-epochs  {state}")
        remaining += [] if task.key in finished else [Job(seconds or 0.0)]
    lines.append(f"{len(plan.tasks)} tasks, {len(plan.tasks) - len(remaining)} of them finished")
    rates = {method: estimate.rate(method) for method in dict.fromkeys(task.method for task in plan.tasks)}
    if None in rates.values():
        return "\n".join([*lines, "No time is known: give --seconds_per_image_epoch, or let a first task finish."])
    how = {method: "measured" if method in estimate.taken else "given" for method in rates}
    if estimate.given is None:
        how = {method: "measured" if method in estimate.taken else "of other methods" for method in rates}
    shown = ", ".join(f"{method} {rate:.4g} s ({how[method]})" for method, rate in rates.items())
    makespan, work = list_schedule(remaining, slots).makespan, sum(job.seconds for job in remaining)
    bound = lower_bound(remaining, slots)
    limit = "the longest task" if remaining and bound == remaining[0].seconds else "the work itself"
    lines.append(f"an image-epoch: {shown}")
    lines.append(f"one after the other {duration(work)}; on {slots} slots {duration(makespan)}, of which {limit} makes "
                 f"{duration(bound)} inevitable")
    return "\n".join(lines)
