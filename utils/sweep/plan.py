"""The tasks of a sweep: one for each data set, category, method and seed, the costliest first."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from datasets import DataSource, open_dataset
from datasets.base import DataError
from datasets.names import misfit_of, printable
from models.recipes import METHODS, epochs_for
from utils.runs.settings import EARLIER, FREE_SETTINGS, NOT_SETTINGS, setting_differences
from utils.sweep.store import Store
from utils.system.errors import UsageError

OF_A_TASK = ("data_root", "categories", "method", "seed")  # flags of train.py that the sweep sets for each task
SETTINGS = "sweep.json"


@dataclass(frozen=True)
class Task:
    """One category, trained and scored with one method and seed.

    flags: all others of train.py; scoring: those of test.py. image_epochs: training images times epochs of all stages.
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
    data_roots: Sequence[Path], categories: Sequence[str] | None, methods: Sequence[str], seeds: Sequence[int],
    settings: Mapping[str, Any], flags: Sequence[str] = (), scoring: Sequence[str] = (),
) -> Plan:
    """Every combination of what is given; categories: None for all.

    settings: what train.py takes, by name. flags: those of them that a task passes on; scoring: the same for test.py.
    Raises UsageError for a combination that cannot be, DataError for data sets that cannot be used.
    """
    recipe = settings["recipe"]
    if lacking := [method for method in methods if recipe not in METHODS[method]]:
        raise UsageError(f"`recipe` {recipe}: there is none for `methods` {', '.join(lacking)}")
    roots = {root.resolve().name: str(root.resolve()) for root in data_roots}
    if len(roots) < len(data_roots):
        raise UsageError(f"`data_root`: tasks are named after the folders, whose names must differ: {', '.join(roots)}")
    for name in roots:
        if reason := misfit_of(name):
            raise UsageError(f"`data_root`: no data set can be called {printable(name)!r}: {reason}")
    layout = settings["dataset"], None, settings["good"], settings["bad"]
    sources = {name: open_dataset(root, *layout) for name, root in roots.items()}
    known = {category for source in sources.values() for category in source.categories}
    if unknown := [category for category in categories or [] if category not in known]:
        raise UsageError(f"`categories`: none of the data sets has {', '.join(unknown)}")
    asked = settings["epochs_stage1"], settings["epochs_stage2"]
    tasks = []
    for name, source in sources.items():
        for category in (c for c in source.categories if categories is None or c in categories):
            images = count_images(source, category)
            epochs = [stage or epochs_for(images) for stage in asked]
            for method, seed in product(dict.fromkeys(methods), dict.fromkeys(seeds)):
                work = images * sum(METHODS[method][recipe].epochs(*epochs))
                tasks.append(Task(roots[name], name, category, method, seed, work, tuple(flags), tuple(scoring)))
    free = (*FREE_SETTINGS, *NOT_SETTINGS, *OF_A_TASK)
    kept = {name: value for name, value in settings.items() if name not in free}
    tasks.sort(key=lambda task: (-task.image_epochs, task.key))
    return Plan(tasks, list(dict.fromkeys(methods)), kept, roots)


def count_images(source: DataSource, category: str) -> int:
    """Count the images of training: 0 where there are none, of which train.py will say more."""
    with suppress(DataError):
        return len(source.list_samples(category, "train")[0])
    return 0


def check_settings(store: Store, plan: Plan, keep: bool = True) -> None:
    """Refuse a store of another sweep by UsageError with the differences; `keep` writes down whose it is."""
    stored = store.read_json(SETTINGS)
    before = stored or {"settings": plan.settings, "data_roots": {}}
    foreign = stored is None and store.names(SETTINGS)
    if foreign or not all(isinstance(before.get(part), dict) for part in ("settings", "data_roots")):
        raise UsageError(f"{store.url_of(SETTINGS)} is not of a sweep; choose another `store`")
    differences = setting_differences(EARLIER | before["settings"], plan.settings)
    roots = {**plan.data_roots, **before["data_roots"]}
    differences += [f"{name}: {roots[name]} -> {new}" for name, new in plan.data_roots.items() if roots[name] != new]
    if differences:
        raise UsageError(
            f"{store.url_of()} holds a sweep with other settings ({'; '.join(differences)}); choose another `store`"
        )
    if keep:
        store.write_json(SETTINGS, {"settings": plan.settings, "data_roots": roots})


@dataclass
class Estimate:
    """Seconds of tasks: image-epochs times the seconds of one, which are known from finished tasks or given."""

    given: float | None = None  # for methods of which no task is finished; None: as of all finished tasks
    seconds: Counter[str] = field(default_factory=Counter)  # of finished tasks, by method
    image_epochs: Counter[str] = field(default_factory=Counter)  # the same

    def add(self, method: str, seconds: float, image_epochs: int) -> None:
        self.seconds[method] += seconds
        self.image_epochs[method] += image_epochs

    def rate(self, method: str) -> float | None:
        """Seconds of an image-epoch; None if nothing is known."""
        if self.image_epochs[method]:
            return self.seconds[method] / self.image_epochs[method]
        if self.given is None and self.image_epochs.total():
            return self.seconds.total() / self.image_epochs.total()
        return self.given

    def of(self, task: Task) -> float | None:
        rate = self.rate(task.method)
        return None if rate is None else rate * task.image_epochs


def format_plan(plan: Plan, finished: Collection[str], estimate: Estimate, slots: int) -> str:
    """The tasks in their order, `finished` by their keys, and what is to be expected of so many slots."""
    lines, remaining = [], []  # seconds
    for number, task in enumerate(plan.tasks):
        seconds, state = estimate.of(task), "finished"
        if task.key not in finished:
            state = "unknown" if seconds is None else duration(seconds)
            remaining.append(seconds or 0.0)
        lines.append(f"{number:>4}  {task.key:<40}  {task.image_epochs:>9} image-epochs  {state}")
    lines.append(f"{len(plan.tasks)} tasks, {len(plan.tasks) - len(remaining)} of them finished")
    rates = {method: estimate.rate(method) for method in dict.fromkeys(task.method for task in plan.tasks)}
    if None in rates.values():
        return "\n".join([*lines, "No time is known: give the seconds of an image-epoch, or let a first task finish."])
    otherwise = "of other methods" if estimate.given is None else "given"
    origins = {method: "measured" if estimate.image_epochs[method] else otherwise for method in rates}
    work = sum(remaining)
    bound = max([work / slots, *remaining])
    limit = "the longest task" if remaining and bound == remaining[0] else "the work itself"
    lines.append("an image-epoch: " + ", ".join(f"{m} {rate:.4g} s ({origins[m]})" for m, rate in rates.items()))
    lines.append(f"one after the other {duration(work)}; on {slots} slots {duration(makespan(remaining, slots))}, of "
                 f"which {limit} makes {duration(bound)} inevitable")
    return "\n".join(lines)


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Seconds that tasks take on equal slots, each started in this order as soon as one is free.

    The longest first it is at most 4/3 - 1/(3 * slots) times the best possible (Graham, 1969).
    """
    free = [0.0] * slots  # when each slot is free, as a heap
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def duration(seconds: float) -> str:
    """Seconds in words, to two places: "3 h 20 min", "45 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
