"""The steps of a stage: down the gradient, with the figures of an epoch, in all processes alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR

from models.recipes import LR_FACTOR
from utils.system.memory import release_freed_memory
from utils.training.execution import Execution

ADAM_BETAS = (0.5, 0.999)


class NonFiniteLoss(RuntimeError):
    """The loss of a step, counted from 0, is NaN or infinite."""

    def __init__(self, value: float, step: int):
        super().__init__(f"the loss is {value} in step {step + 1}")
        self.value, self.step = value, step


class Average:
    """Means over an epoch, weighted by batch size, gathered on the device and read once at the end: of each value by
    its name, one of them "loss", and of the gate's precision and recall."""

    def __init__(self):
        self._clear()

    def _clear(self) -> None:
        self.images = 0
        self.losses: list[Tensor] = []  # of each step
        self.sums: dict[str, Tensor] = {}
        self.gate_counts: Tensor | None = None  # (levels, 3): true positives, predicted, anomalous

    def add(self, images: int, **values: Tensor) -> None:
        self.images += images
        self.losses.append(values["loss"].detach())
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach() * images

    def count(self, gate_counts: Tensor) -> None:
        earlier = 0 if self.gate_counts is None else self.gate_counts.to(gate_counts.device)
        self.gate_counts = earlier + gate_counts

    def finish(self) -> dict[str, float]:
        """Means by name, then forgotten; with gate counts also their precision and recall, means over the levels that
        have them.

        Raises NonFiniteLoss for the first step whose loss was NaN or infinite.
        """
        self._check()
        figures = {name: float(value) / self.images for name, value in self.sums.items()}
        if self.gate_counts is not None:
            hits, predicted, anomalous = self.gate_counts.cpu().double().T  # (levels,) each
            for name, total in (("gate_precision", predicted), ("gate_recall", anomalous)):
                if (total > 0).any():
                    figures[name] = float((hits / total)[total > 0].mean())
        self._clear()
        return figures

    def state_dict(self) -> dict[str, Any]:
        """The figures of an unfinished epoch; NonFiniteLoss if it is not worth keeping."""
        self._check()
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in vars(self):
            setattr(self, name, state[name])

    def _check(self) -> None:
        if not self.losses:
            return
        losses = torch.stack([loss.to(self.losses[-1].device) for loss in self.losses]).cpu()
        wrong = (~losses.isfinite()).nonzero().flatten().tolist()
        if wrong:
            raise NonFiniteLoss(float(losses[wrong[0]]), wrong[0])


class Optimizer:
    """Adam and, for float16, a gradient scaler: one call a step.

    With several processes gradients are summed over them, and `statistics`, such as those of batch norms, become means
    over their shares, in the same message: all processes stay the same.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, execution: Execution, device: torch.device,
                 statistics: Sequence[Tensor] = ()):
        self.parameters, self.statistics, self.world = list(parameters), statistics, execution.world
        fused = execution.fused_optimizer and device.type in ("cpu", "cuda")
        self.adam = Adam(self.parameters, lr, betas=ADAM_BETAS, fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=execution.precision == "fp16")
        release_freed_memory()  # of building the model

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        self.scaler.load_state_dict(state["scaler"])

    def step(self, loss: Tensor, weight: float = 1.0) -> None:
        """Go one step down the gradient of `loss`, a mean over this process's share, `weight` of the whole batch."""
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
        self.world.all_reduce_coalesced([*(parameter.grad for parameter in self.parameters), *self.statistics])


class Steps:
    """An optimiser with its schedule, and the figures that an epoch's steps leave.

    milestones: epochs after which the learning rate falls.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int]):
        self.optimizer, self.world = optimizer, optimizer.world
        self.scheduler = MultiStepLR(optimizer.adam, milestones, LR_FACTOR)
        self.figures = Average()

    @property
    def tracked(self) -> dict[str, Any]:
        """Everything that a stage needs to be resumed, by the names in its file."""
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, "figures": self.figures}

    def take(self, loss: Tensor, images: int, gate_counts: Tensor | None = None, **values: Tensor) -> None:
        """Go one step down the gradient of `loss`, a mean over this process's share of a batch, `images` of it; keep
        other `values` that are such means, and counts of the gate."""
        batch = self.world.total(images)
        self.optimizer.step(loss, images / batch)
        self.figures.add(batch, **self.world.means(images / batch, loss=loss, **values))
        if gate_counts is not None:
            self.figures.count(self.world.all_reduce(gate_counts))

    def end_epoch(self) -> dict[str, float]:
        """The figures of the epoch; the learning rate goes on. Raises NonFiniteLoss as `Average.finish`."""
        figures = self.figures.finish()
        self.scheduler.step()
        return figures
