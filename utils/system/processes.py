"""Several processes that train one model, as torchrun starts them: the share of each, and their messages to each other.

    with join() as world:                           # without torchrun a world of one: nothing below does anything
        own = batch[world.share(len(batch))]
        weight = len(own) / world.total(len(own))   # of this process's mean in that of the whole batch
        world.all_reduce_coalesced(gradients)
        world.together(function)                    # what fails in one process fails in all

All processes make the same calls in the same order. The first writes and talks; the others keep silent unless
something happens to them alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.system.errors import ProcessError, ProcessLost, UsageError
from utils.system.signals import Interrupted, ignore_signals
from utils.system.streams import silenced

TIMEOUT = timedelta(minutes=30)  # that a process waits for the others: the first may save, or compute metrics
PATIENCE = timedelta(seconds=60)  # that a process which failed waits for the others to fail as well
FAILED = 1000  # above all signals' numbers

Result = TypeVar("Result")


@dataclass(frozen=True)
class World:
    """This process among all. In a world of one every method returns what it is given."""

    rank: int = 0  # of 0..size-1
    size: int = 1
    control: dist.ProcessGroup | None = field(default=None, compare=False)  # for what is not on a device
    store: dist.Store | None = field(default=None, compare=False)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` things in a row; the parts' sizes differ by one at most, some may be 0."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def shares(self, count: int) -> list[int]:
        """The number of things, of `count`, that each process gets."""
        return [len(range(count)[World(rank, self.size).share(count)]) for rank in range(self.size)]

    def total(self, count: int) -> int:
        """The sum of all processes' counts."""
        return int(self.all_reduce(torch.tensor(count), group=self.control))

    def all_reduce(
        self, tensor: Tensor, op: dist.ReduceOp = dist.ReduceOp.SUM, group: dist.ProcessGroup | None = None
    ) -> Tensor:
        """Reduce the tensor over all processes, in place, and return it."""
        if self.size > 1:
            with _contact():
                dist.all_reduce(tensor, op, group)
        return tensor

    def all_reduce_coalesced(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place, in a single message; all have one type."""
        if self.size == 1:
            return
        flat = self.all_reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def means(self, weight: float, **values: Tensor) -> dict[str, Tensor]:
        """Means over all processes of scalars that are means over a share; a weight of 0 leaves this process's out."""
        if self.size == 1:
            return values
        own = torch.stack([value.detach() for value in values.values()])
        summed = self.all_reduce(own * weight if weight else torch.zeros_like(own))
        return dict(zip(values, summed.unbind(), strict=True))

    def all_gather(self, value: Result) -> list[Result]:
        """The values of all processes, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _contact():
            dist.all_gather_object(values, value, group=self.control)
        return values

    def together(self, function: Callable[[], Result]) -> Result:
        """Call the function, which must not speak to the others, in all processes; where it raises in one, all raise.

        Interrupted in one is raised in all; of another error, where it did not happen, ProcessError, or ProcessLost for
        an OSError.
        """
        if self.size == 1:
            return function()
        result, problem, code = None, None, 0
        try:
            result = function()
        except Interrupted as stop:
            code = stop.number
        except Exception as error:  # whatever it is, the others must not wait for this process
            problem, code = error, FAILED
        worst = int(self.all_reduce(torch.tensor(code), dist.ReduceOp.MAX, self.control))
        if worst == 0:
            return result
        if worst < FAILED:
            raise Interrupted(worst)
        kind = ProcessLost if isinstance(problem, OSError) else ProcessError  # as the others see it
        problems = self.all_gather(problem and (kind, f"process {self.rank}: {problem or type(problem).__name__}"))
        if self.is_first and problem:
            raise problem
        kind, text = next(filter(None, problems))
        raise kind(*text.split("\n")) from problem

    def broadcast(self, function: Callable[[], Result]) -> Result:
        """Call the function in rank 0 alone and give its result to all; raises as `together`."""
        return self.all_gather(self.together(function if self.is_first else lambda: None))[0]

    def rank0_first(self, function: Callable[[], Result]) -> Result:
        """Call the function as `together`, first in rank 0: the others find the files that it leaves."""
        if not self.is_first:
            self.barrier()
        result = self.together(function)
        if self.is_first:
            self.barrier()
        return result

    def barrier(self) -> None:
        """Wait until all are here."""
        self.together(lambda: None)

    def all_come(self, place: str) -> bool:
        """Tell whether all processes make this call, of this place, within PATIENCE: some may wait elsewhere."""
        if self.size == 1:
            return True
        self.store.set(f"{place}/{self.rank}", "")
        try:
            self.store.wait([f"{place}/{rank}" for rank in range(self.size)], PATIENCE)
        except RuntimeError:
            return False
        return True


ALONE = World()


@contextmanager
def join() -> Iterator[World]:
    """Join torchrun's processes; the first alone is heard. What all know of ends the others silently, after the first;
    what happens to one alone passes through."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store still has what earlier ones said
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = dist.PrefixStore(f"attempt{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    world = World(rank, size, dist.new_group(backend="gloo", timeout=TIMEOUT), store)
    with nullcontext() if world.is_first else silenced():
        try:
            yield world
        except (ProcessError, ProcessLost, Interrupted, SystemExit) as end:
            if world.is_first:
                raise
            ignore_signals()
            with suppress(ProcessLost):  # torchrun ends all when one ends: the first must have spoken
                world.barrier()
            if isinstance(end, SystemExit):
                raise
            sys.exit(end.exit_status if isinstance(end, Interrupted) else 2)
    dist.destroy_process_group()


def own_device(name: str, world: World) -> str:
    """The device that a name means in this process: of CUDA ones its own. UsageError for one that cannot be shared."""
    if world.size == 1:
        return name
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"`device` {name}: several processes train on cpu or cuda, each on a CUDA device of its own")
    if name == "cpu" or not (torch.cuda.is_available() or name == "cuda"):
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def kept_by_launcher(key: str, find: Callable[[], str]) -> str:
    """The value that an earlier attempt of the same torchrun kept, after a restart; otherwise that of `find`, kept."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return find()
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    if not store.check([key]):
        store.set(key, find())
    return store.get(key).decode()


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of torch.distributed, of several types
        raise ProcessLost(
            "another process of this run ended or does not answer; the same command goes on from what was saved"
        ) from error
