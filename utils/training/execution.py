"""Number format, memory layout, optimiser and processes of a computation. Speed depends on it, results by
rounding alone (with several processes also by what docs/scaling.md says)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.aand import AAND
from models.folding import fold_batch_norms
from models.teacher import PretrainedTeacher
from utils.system.device import DTYPES
from utils.system.processes import ALONE, World


@dataclass(frozen=True)
class Execution:
    """Everything that makes training fast; `PLAIN` has none of it."""

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
            fold_batch_norms(teacher.trunk, torch.zeros(1, 3, 64, 64, device=teacher.device))
        if self.compile:
            teacher.trunk.compile()

    def prepare(self, model: AAND) -> None:
        """Lay out a model with a prepared teacher for training, in place."""
        model.to(memory_format=self.memory_format)
        if self.compile:
            for part in model.student_parts:
                part.compile()


PLAIN = Execution(channels_last=False, fold_norms=False, fused_optimizer=False)
