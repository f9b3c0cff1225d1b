"""What an epoch's training is summed up in, and the check that its losses are numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
        """Means by name; with gate counts also their precision and recall, means over the levels that have them. What
        was gathered is forgotten.

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
        """What was gathered of an unfinished epoch; NonFiniteLoss if it is not worth keeping."""
        self._check()
        return {"images": self.images, "losses": self.losses, "sums": self.sums, "gate_counts": self.gate_counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images, self.losses = state["images"], state["losses"]
        self.sums, self.gate_counts = state["sums"], state["gate_counts"]

    def _check(self) -> None:
        if not self.losses:
            return
        losses = torch.stack([loss.to(self.losses[-1].device) for loss in self.losses]).cpu()
        wrong = (~losses.isfinite()).nonzero().flatten().tolist()
        if wrong:
            raise NonFiniteLoss(float(losses[wrong[0]]), wrong[0])
