"""The test set of a category in memory, and a model's metrics on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from datasets.base import Sample
from datasets.loading import load_masks, load_stack
from models.aand import AAND
from utils.engine import predict_maps
from utils.metrics import evaluate


@dataclass(frozen=True)
class TestSet:
    """Decoded test images uint8 (N, S, S, 3), labels (N,), masks uint8 (N, S, S) or None where some are missing."""

    images: Tensor
    labels: np.ndarray
    masks: np.ndarray | None

    @classmethod
    def load(cls, samples: Sequence[Sample], size: int, workers: int) -> TestSet:
        images = load_stack([sample.image_path for sample in samples], size, workers)
        masks = load_masks(samples, size, workers)
        labels = np.array([sample.label for sample in samples])
        return cls(images, labels, None if masks is None else masks.numpy())


def evaluate_model(model: AAND, test_set: TestSet, batch_size: int) -> tuple[dict[str, float], np.ndarray]:
    """The metrics that can be computed, as fractions, and the anomaly maps float32 (N, S, S)."""
    maps, scores = predict_maps(model, test_set.images, batch_size)
    return evaluate(test_set.labels, scores, test_set.masks, maps), maps
