"""How a model is computed: number format, memory layout, optimiser, processes. Speed depends on it, results by
rounding alone (with several processes also by what docs/scaling.md says).

    execution = Execution(precision=resolve_precision("auto", device))
    with execution.autocast(device): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.optim import Adam

from models.aand import AAND
from models.folding import fold_batch_norms
from models.teacher import PretrainedTeacher
from utils.cli import UsageError
from utils.distributed import ALONE, World, processes_here
from utils.memory import release_freed_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_SHARE = 0.5  # of the memory or disk space free that images, or features, may take


@dataclass(frozen=True)
class Execution:
    """What makes training fast; `PLAIN` has none of it."""

    precision: str = "fp32"  # of convolutions in training; losses, cosines and softmax are always float32
    channels_last: bool = True
    fold_norms: bool = True  # the frozen trunk's batch norms
    fused_optimizer: bool = True
    compile: bool = False  # torch.compile
    world: World = ALONE  # the processes that train together

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> torch.autocast:
        """The arithmetic of convolutions: losses stay outside."""
        return torch.autocast(device.type, self.dtype, enabled=self.precision != "fp32")

    def prepare_teacher(self, teacher: PretrainedTeacher) -> None:
        """Make a frozen teacher as fast as it can be, in place: its state dict changes, so save it before."""
        teacher.to(memory_format=self.memory_format)
        if self.fold_norms:
            fold_batch_norms(teacher.trunk, torch.zeros(1, 3, 64, 64, device=teacher.mean.device))
        if self.compile:
            teacher.trunk.compile()

    def prepare(self, model: AAND) -> None:
        """Lay out a model with a prepared teacher for training, in place."""
        model.to(memory_format=self.memory_format)
        if self.compile:
            model.bottleneck.compile()
            model.decoder.compile()


PLAIN = Execution(channels_last=False, fold_norms=False, fused_optimizer=False)


class Optimizer:
    """Adam and, for float16, a gradient scaler: one call a step.

    With several processes gradients are summed over them, and `statistics`, such as those of batch norms, become means
    over their shares, in the same message: all processes stay the same.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], execution: Execution,
                 device: torch.device, statistics: Sequence[Tensor] = ()):
        self.parameters, self.statistics, self.world = list(parameters), statistics, execution.world
        fused = execution.fused_optimizer and device.type in ("cpu", "cuda")
        self.adam = Adam(self.parameters, lr, betas=betas, fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=execution.precision == "fp16")
        release_freed_memory()  # of building the model

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.scaler.load_state_dict(state["scaler"])

    def step(self, loss: Tensor, weight: float = 1.0) -> None:
        """Go one step down the gradient of `loss`, a mean over this process's share of a batch that is `weight` of all
        of it."""
        first = not self.adam.state
        self.scaler.scale(loss * weight).backward()
        if self.world.size > 1:
            self._unite(weight)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.adam.zero_grad(set_to_none=True)  # now: the next step's activations need the room
        if first:  # Adam's moments now lie where the next activations would have fitted
            release_freed_memory()

    @torch.no_grad()
    def _unite(self, weight: float) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for statistic in self.statistics:
            statistic.mul_(weight)
        self.world.sum_all([*(parameter.grad for parameter in self.parameters), *self.statistics])


def resolve_precision(precision: str, device: torch.device) -> str:
    """The number format that a --precision flag means on a device; "auto" is bf16 where the hardware has it.

    Raises UsageError for fp16 without CUDA: elsewhere it is slower than float32, or not there at all.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(f"--precision fp16 needs a CUDA device, not {device.type}; use auto, bf16 or fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bfloat16 in hardware; False where the system does not tell."""
    if not cpuinfo.is_file():
        return False
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, ARM


def available_memory(device: torch.device) -> int:
    """Bytes that can be taken now: of a CUDA device's memory, or this process's part of the machine's, control groups
    considered."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")  # version 2: the limit of a container
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no limit is written as "max"
        return free // processes_here()
    return min(free, max(0, limit - used)) // processes_here()


def near(stack: Tensor, device: torch.device) -> Tensor:
    """A stack of images on a CUDA device, if a tenth of its free memory holds it: batches then need no copy. Otherwise,
    and on other devices, the stack as it is."""
    fits = device.type == "cuda" and isinstance(stack, Tensor) and stack.nbytes <= 0.1 * available_memory(device)
    return stack.to(device) if fits else stack
