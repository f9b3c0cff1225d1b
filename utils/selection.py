"""Choose the epoch of Stage II without a test image: by synthetic anomalies on good images held out of training.

    validation = synthetic_test_set(held_out, textures)       # a TestSet like any other
    best = BestStudent(model)
    best.offer(epoch, figures_on_synthetic_anomalies(...))
    best.restore()

The anomalies are of kinds that training does not use (datasets/anomalies/unseen.py); an epoch is rated by the mean of
its image AUROC and PRO on them.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.anomalies.unseen import make_unseen_anomalies
from datasets.base import DataError
from models.aand import AAND
from utils.data.image_store import Stack
from utils.detection.prediction import Prediction, TestSet
from utils.runs.folder import RATED_BY, SYNTHETIC
from utils.system.processes import ALONE, World

RATINGS = 10  # epochs of Stage II that are rated, evenly spaced, the last among them
VALIDATION_SEED = 0  # the same anomalies for every seed of training


def synthetic_test_set(held_out: Stack, textures: Stack) -> TestSet:
    """Held-out good images and anomalies of every unseen kind on each of them.

    held_out: uint8 (N, S, S, 4), RGB and foreground of 0 and 1; textures: uint8 (T, 3, S, S). Raises DataError if no
    anomaly can be seen.
    """
    content: Tensor = held_out[:]
    images, foregrounds = content[..., :3].numpy(), content[..., 3].numpy()
    anomalies, found, _ = make_unseen_anomalies(images, foregrounds, textures, VALIDATION_SEED)
    if len(anomalies) == 0:
        raise DataError("no synthetic anomaly can be seen on the images held out; use --select last")
    labels = np.repeat([0, 1], [len(images), len(anomalies)])
    masks = np.concatenate([np.zeros_like(foregrounds), found])
    return TestSet(torch.from_numpy(np.concatenate([images, anomalies])), labels, masks)


def rated_epochs(epochs: int) -> set[int]:
    """The epochs that are rated: ten at most, the last and others at even distances before it."""
    step = math.ceil(epochs / RATINGS)
    return set(range(epochs, 0, -step))


def rate(model: AAND, validation: TestSet, batch_size: int, world: World = ALONE) -> dict[str, float]:
    """The metrics that rate a model, by their names in the log."""
    metrics = Prediction.metrics(model, validation, batch_size, world)
    return {SYNTHETIC + name: metrics[name] for name in RATED_BY if name in metrics}


class BestStudent:
    """The student of the epoch rated best so far; of equal ones the first."""

    def __init__(self, model: AAND):
        self.parts = [part for part in (model.bottleneck, model.decoder, model.standardisation) if part]
        self.epoch, self.rating = 0, -math.inf
        self.states: list[dict[str, Tensor]] = []

    def offer(self, epoch: int, rating: float) -> None:
        """Keep the student as it is now if it is better."""
        if rating > self.rating:
            self.epoch, self.rating = epoch, rating
            self.states = [copy.deepcopy(part.state_dict()) for part in self.parts]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "rating": self.rating, "states": self.states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.rating, self.states = state["epoch"], state["rating"], state["states"]

    def restore(self) -> None:
        """Give the model the best student back."""
        for part, state in zip(self.parts, self.states, strict=True):
            part.load_state_dict(state)
