"""A run that trains: everything is checked and read before anything is written, then it goes category by category."""

from __future__ import annotations

import glob
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import torch

from datasets.anomalies.textures import list_textures
from datasets.base import DataError
from datasets.names import printable
from models.teacher import build_teacher
from utils.metrics.tables import format_published_protocol
from utils.runs.checkpoint import keep_teacher
from utils.runs.folder import Run, list_seeds, open_runs, seed_folder, trained_categories
from utils.runs.history import LOG, RunLog, published_protocol
from utils.runs.resuming import check_settings, lock_run, open_run, unfinished_run
from utils.runs.settings import CONFIG, PLANNED
from utils.system.errors import ProcessLost, RunError, UserError, as_flags, command
from utils.system.processes import World, kept_by_launcher
from utils.system.signals import Interrupted
from utils.training.category import Category, TrainingSet
from utils.training.config import TrainConfig
from utils.training.data import check_batches, read_data, warn_of_shortage
from utils.training.forecast import Forecast, ImagesLeft
from utils.training.plan import Plan, offering_preset
from utils.training.steps import NonFiniteLoss
from utils.training.time_limit import within_limit


@dataclass
class Training:
    """A run whose folders are locked and whose data are read; `seeds` are its runs of one seed each."""

    folder: Path
    plan: Plan
    seeds: list[SeedRun]

    @classmethod
    def of(
        cls, folder: Path, plan: Plan, read: Callable[[str], TrainingSet], paces: Mapping[int, float] | None = None
    ) -> Training:
        """The training of a plan in a folder. read: gives the data of a category; paces: of `Forecast`."""
        config, seeds = plan.config, []
        forecast = Forecast(
            config.backbone, config.torch_device, lambda: [run.images_left() for run in seeds], paces
        )
        for place, seed in seed_folders(folder, config).items():
            seeds.append(SeedRun(place, plan, replace(config, seed=seed), read, forecast))
        return cls(folder, plan, seeds)

    def what_next(self) -> str:
        """The next commands: test.py for trained categories with test images, predict.py for the others."""
        run, data_root, samples = self.folder, self.plan.config.data_root, self.plan.samples
        trained = trained_categories(run)
        tested = [category for category, split in samples.items() if split.test]
        others = [category for category in samples if category not in tested]
        advice = []
        if tested:
            which = [] if set(tested) == set(trained) else ["--categories", *tested]
            without = ["--skip_bad"] if self.plan.usable.test_errors else []
            scoring = command("test.py", "--data_root", data_root, "--run", run, *which, *without)
            advice.append(f"score it with: {scoring}")
        if others:
            several = len(trained) > 1
            predicting = command("scripts/predict.py", run, "IMAGES", *(["--category", others[0]] if several else []))
            advice.append(f"no test images of {printable(', '.join(others))}: score others with: {predicting}")
            if not open_runs(run)[0].category(others[0]).thresholds.is_file():
                which = ["--categories", others[0]] if several else []
                setting = command("scripts/calibrate.py", run, "--images", "GOOD_IMAGES", *which)
                advice.append(f"set a threshold first with: {setting}")
        return "; ".join(advice)

    def finish(self) -> None:
        """Say what to do next; SystemExit with status 1 if a category could not be trained."""
        if failed := [category for run in self.seeds for category in run.failed]:
            where = f"{LOG} in {self.folder}"
            print(printable(f"error: not trained: {', '.join(failed)}; see above, or {where}"), file=sys.stderr)
            sys.exit(1)
        if not self.plan.config.seeds:
            RunLog(self.folder, self.plan.config.world.is_first).say(f"done; {self.what_next()}")


@dataclass
class SeedRun:
    """A run folder that is trained with one seed; `failed` are the categories that could not be."""

    folder: Path
    plan: Plan
    config: TrainConfig
    read: Callable[[str], TrainingSet]
    forecast: Forecast
    failed: list[str] = field(default_factory=list)
    begun: Category | None = None  # under way

    def untrained(self) -> Iterator[str]:
        """The categories that are not trained yet; the run folder is begun, or gone on with."""
        config, world, source = self.config, self.config.world, self.plan.source
        self.settings = self.plan.settings(config.seed)
        world.broadcast(lambda: open_run(self.folder, self.settings, other_seeds(self.folder, config)))
        torch.manual_seed(config.seed)  # for random weights
        self.teacher = build_teacher(config.backbone, config.weights).to(config.torch_device)
        self.made_with = world.rank0_first(lambda: keep_teacher(Run(self.folder).teacher, self.teacher, self.settings))
        config.execution.prepare_teacher(self.teacher)
        self.log = RunLog(self.folder, writes=world.is_first, board=config.tensorboard)
        where = f"{config.torch_device}, {world.size} processes" if world.size > 1 else config.torch_device
        named = f"{config.method}, {config.backbone}, {source.name} in {source.root}"
        self.log.say(f"{named}, on {where}; run folder {self.folder}")
        if source.missing:
            self.log.say(f"not on disk, skipped: {', '.join(source.missing)}")
        for name in source.categories:
            if world.broadcast(lambda name=name: self._is_trained(name)):
                self.log.say(f"{name}: already trained, skipped")
            else:
                yield name
        if chosen := published_protocol(self.folder):
            self.log.say(*format_published_protocol([chosen]).splitlines())

    def images_left(self) -> ImagesLeft:
        """The images that are still to be shown, by category and stage."""
        config, left = self.config, {}
        for name in (name for name in self.plan.samples if name not in self.failed):
            files = Run(self.folder).category(name)
            images = len(self.plan.samples[name].train) * self.config.windows
            epochs = zip((1, 2), config.traits.epochs(config.epochs_stage1, config.epochs_stage2), strict=True)
            stages = {stage: images * count for stage, count in epochs if not files.stage(stage).is_file()}
            if self.begun and self.begun.name == name and self.begun.stage and self.begun.stage.number in stages:
                stages[self.begun.stage.number] -= self.begun.shown
            if stages:
                left[name] = stages
        return left

    def _is_trained(self, category: str) -> bool:
        files = Run(self.folder).category(category)
        files.remove_stale_progress()
        return files.is_trained

    def begin(self, name: str) -> Category:
        """A category with its model and data, ready to be trained."""
        files, images = Run(self.folder).category(name), self.plan.usable.images
        seen = [images[sample.image_path].digest for sample in self.plan.samples[name].train]
        self.config.world.broadcast(lambda: files.keep_training_images(seen))
        data = self.read(name)
        self.begun = Category(
            name, data, self.teacher, self.config, self.settings, self.log, self.made_with, self.forecast
        )
        return self.begun

    @contextmanager
    def recording(self, name: str) -> Iterator[None]:
        """Note a category that fails, which costs no other.

        Raises OSError where the run folder cannot be written, and what concerns all processes.
        """
        world, self.begun = self.config.world, None
        try:
            try:
                yield
            except NonFiniteLoss as error:
                raise self.begun.describe(error) from error
            finally:
                if self.begun:
                    self.begun.stages.close()
        except (OSError, ProcessLost):  # the next would fail too
            raise
        except Exception as error:  # whatever it is, it must not cost the others hours
            lines = traceback.format_exc().splitlines()
            if not world.all_come(f"{self.folder} {name} failed"):
                RunLog(self.folder).note(*lines)
                raise RunError(f"{name} failed in process {world.rank} alone: {in_words(error)}") from error
            self.failed.append(name)
            self.log.note(*lines)
            self.log.say(*f"{printable(name)} failed: {in_words(error)}".split("\n"))


@contextmanager
def open_training(config: TrainConfig, world: World) -> Iterator[Training]:
    """Check the flags and every file, lock the run and read the data: errors now, not in hours, and before anything is
    written. Raises DataError, UsageError, RunError or OSError."""
    started = time.perf_counter()
    with ExitStack() as locks:
        plan = world.rank0_first(lambda: Plan.of(config.resolve(world)))  # rank 0 leaves what it found of the files
        config = plan.config
        folder = world.broadcast(
            lambda: config.output or Path(kept_by_launcher("run", lambda: str(choose_folder(plan))))
        )
        start = world.rank0_first if config.cache == "disk" else world.together
        read, paces = start(lambda: prepare(folder, plan, locks)), None
        if plan.planned_from:
            if before := world.broadcast(lambda: planned_epochs(folder)):
                plan = replace(plan, config=replace(config, **before))
            else:
                plan, paces = within_limit(plan, read, started)
        try:
            yield Training.of(folder, plan, read, paces)
        except Interrupted:
            print(f"go on with: {command('train.py', '--resume', folder)}", file=sys.stderr)
            raise


def prepare(folder: Path, plan: Plan, locks: ExitStack) -> Callable[[str], TrainingSet]:
    """Lock the run, check that it can be trained and read the data; returns what gives those of a category."""
    config = plan.config
    seeds = seed_folders(folder, config)
    for place in dict.fromkeys([folder, *seeds]) if config.world.is_first else ():
        locks.enter_context(lock_run(place))
    for place, seed in seeds.items():
        check_settings(place, plan.settings(seed), other_seeds(place, config))
    textures = list_textures(config.aux_path) if config.traits.amplified else []
    with offering_preset(plan.source):
        build_teacher(config.backbone, config.weights)  # fails early if it cannot
    check_batches(plan.samples, config, config.world)
    warn_of_shortage(plan.samples, config)
    usable = plan.usable
    return read_data(plan.source, plan.samples, usable.levels, textures, config, usable.decoded)  # last: every file


def seed_folders(folder: Path, config: TrainConfig) -> dict[Path, int]:
    """The seeds of a run by their folders."""
    return {seed_folder(folder, seed): seed for seed in config.seeds or ()} or {folder: config.seed}


def planned_epochs(folder: Path) -> dict[str, int] | None:
    """The epochs that a run was begun with, in any of its seeds; None if it is to be begun now."""
    for place in (folder, *list_seeds(folder)):
        if (place / CONFIG).is_file():
            return {name: Run(place).config[name] for name in PLANNED}
    return None


def choose_folder(plan: Plan) -> Path:
    """The folder of a run without `output`: that of the same command if it is not finished, otherwise a new one."""
    config = plan.config
    name = f"{plan.source.name}-{config.method}-{config.backbone.replace(':', '-').replace('/', '-')}"
    unfinished = unfinished_run(f"{glob.escape(name)}-*", plan.settings(config.seed), config.seeds or ())
    if unfinished:
        print(printable(f"going on with the unfinished {unfinished}; --output starts a new run"), file=sys.stderr)
    return unfinished or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def other_seeds(folder: Path, config: TrainConfig) -> list[Path]:
    return [other for other in list_seeds(folder.parent) if other != folder] if config.seeds else []


def in_words(error: Exception) -> str:
    """The message of an error for log.txt; of one that is not ours with its type, as its traceback begins."""
    expected = isinstance(error, DataError | UserError)
    return as_flags(str(error)) if expected else printable(f"{type(error).__name__}: {error} (traceback in {LOG})")
