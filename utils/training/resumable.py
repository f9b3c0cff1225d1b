"""The state of a training stage, from which it can be resumed bit for bit after its process ended.

The file holds the model, the optimiser and its schedule, all random states, and the figures of an unfinished epoch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from datasets.batches import epoch_seed
from models import WeightsError
from models.tensor_files import first_line, read_file
from utils.runs.checkpoint import save_tensors
from utils.system.errors import CheckpointError
from utils.system.processes import ALONE, World
from utils.system.signals import Interrupted

if TYPE_CHECKING:
    from torch.distributed.checkpoint.stateful import Stateful

MADE_WITH = "made with"  # begins names of an identity which earlier files do not have
SAVING_SHARE = 0.05  # of the time, at most: large models on slow disks are not saved after every epoch

Batch = TypeVar("Batch")


class ResumableStage:
    """The epoch (from 1) and the step (from 0) that come next in a stage, and everything that they depend on.

    path: its file; without one, nothing is kept. parts: modules that the stage trains. identity: plain values by name
    that must be the same for the file to be used. check: raises Interrupted if the program was asked to stop. world:
    all processes read the file and rank 0 writes it; it does not depend on their number, and all stop at the same step.
    number: 1 or 2. The attributes `log`, for an epoch's figures, `tick`, for a step, and `say`, for a line of text, do
    nothing at first.

    Raises CheckpointError for a file that cannot be read or is of something else.
    """

    def __init__(
        self, path: Path | None = None, parts: Mapping[str, nn.Module] | None = None,
        identity: Mapping[str, Any] | None = None, check: Callable[[], None] = lambda: None, world: World = ALONE,
        number: int = 2,
    ):
        self.path, self.identity, self.check, self.world = path, dict(identity or {}), check, world
        self.number = number
        self.log: Callable[[int, dict[str, float]], None] = lambda epoch, figures: None
        self.say: Callable[[str], None] = lambda text: None
        self.tick: Callable[[], None] = lambda: None
        self.tracked: dict[str, Stateful] = dict(parts or {})
        self.epoch, self.step = 1, 0
        self.notes: dict[str, Any] = {}  # plain values that are kept with it
        self.content = self._read() if path and path.is_file() else None
        if self.content:
            self.epoch, self.step, self.notes = (self.content[name] for name in ("epoch", "step", "notes"))
            self._restore(self.tracked)
        self.earlier = self.content["seconds"] if self.content else 0.0
        self.started = self.saved = time.perf_counter()
        self.cost = 0.0  # seconds that the last save took

    @property
    def resumed(self) -> bool:
        return self.content is not None

    @property
    def seconds(self) -> float:
        """Seconds that the stage has taken so far, over all its processes."""
        return self.earlier + time.perf_counter() - self.started

    def track(self, **objects: Stateful) -> None:
        """Save these too, and restore them now if there is a file."""
        self.tracked |= objects
        if self.content:
            self._restore(objects)

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that remain of 1..count; each is saved once the loop comes back for the next."""
        while self.epoch <= count:
            yield self.epoch
            self.epoch, self.step = self.epoch + 1, 0
            if time.perf_counter() - self.saved >= self.cost / SAVING_SHARE:
                self.save()
            self._stop_if_asked()

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches that remain of an epoch."""
        remaining = islice(batches, self.step, None)
        while (batch := self.world.together(lambda: next(remaining, None))) is not None:
            self._stop_if_asked()
            yield batch
            self.step += 1
            self.tick()

    def save(self) -> None:
        if self.path is None:
            return
        started = time.perf_counter()
        content = {
            "identity": self.identity, "epoch": self.epoch, "step": self.step, "seconds": self.seconds,
            "notes": self.notes,
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},  # all that is drawn from
        }
        content |= {name: item.state_dict() for name, item in self.tracked.items()}
        if self.world.is_first:
            save_tensors(self.path, content)
        self.saved = time.perf_counter()
        self.cost = self.saved - started

    def remove(self) -> None:
        """Delete the file: what it is good for is done."""
        if self.path and self.world.is_first:
            self.path.unlink(missing_ok=True)

    def _stop_if_asked(self) -> None:
        try:
            self.world.together(self.check)
        except Interrupted:
            self.save()
            raise

    def _read(self) -> dict[str, Any]:
        try:
            content = read_file(self.path)
        except WeightsError as error:
            raise CheckpointError(f"{error}; delete it to train this stage from its start") from error
        needed = ("identity", "epoch", "step", "seconds", "notes", "random", *self.tracked)
        if missing := [name for name in needed if name not in content]:
            raise CheckpointError(f"{self.path} is no progress of train.py: no {', '.join(missing)} in it; delete it")
        if not _is_whole(content):
            raise CheckpointError(f"{self.path} is no progress of train.py: its values are of other kinds; delete it")
        before = content["identity"]
        said = {n: now for n, now in self.identity.items() if n in before or not n.startswith(MADE_WITH)}
        others = {n: now for n, now in said.items() if type(before.get(n)) is not type(now) or before.get(n) != now}
        if differences := [f"{name}: {before.get(name)} -> {now}" for name, now in others.items()]:
            raise CheckpointError(
                f"{self.path} cannot go on with something else ({'; '.join(differences)}); choose another `output`, "
                "or delete it to train this stage from its start"
            )
        try:
            states = content["random"]
            torch.set_rng_state(states["cpu"])
            if len(states["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(states["cuda"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} has no random states: {first_line(error)}; delete it") from error
        return content

    def _restore(self, objects: Mapping[str, Stateful]) -> None:
        for name, item in objects.items():
            try:
                item.load_state_dict(copy.deepcopy(self.content[name]))  # optimisers keep what they are given
            except Exception as error:  # what modules and optimisers make of foreign values: unrelated types
                problem = " ".join(str(error).split())  # torch's are of several lines
                raise CheckpointError(f"{self.path} does not fit: {name}: {problem}; delete it") from error


class StepGenerator:
    """The random generator of a stage's steps, one after the other through an epoch.

    Several processes draw for their own shares: theirs is seeded in each step, since rank 0's state alone is kept.
    """

    def __init__(self, seed: int, world: World):
        self.seed, self.world, self.generator = seed, world, torch.Generator()

    def at(self, epoch: int, step: int) -> torch.Generator:
        """The generator, ready for a step."""
        if step == 0:
            self.generator.manual_seed(epoch_seed(self.seed, epoch))
        if self.world.size > 1:
            self.generator.manual_seed(epoch_seed(self.seed, epoch, step, self.world.rank))
        return self.generator

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["state"])


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Check that the plain values of a file are of the kinds that `save` writes."""
    epoch, step, seconds = (content[name] for name in ("epoch", "step", "seconds"))
    numbers = type(epoch) is int and epoch >= 1 and type(step) is int and step >= 0 and type(seconds) is float
    dicts = all(isinstance(content[name], dict) for name in ("identity", "notes", "random"))
    return numbers and 0 <= seconds < math.inf and dicts
