"""The test set of a category in memory, and a model's metrics on it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.base import Sample, load_mask, lost_regions, read_size
from datasets.files import image_files, paths_of, spread_masks
from datasets.names import printable
from datasets.problems import count
from datasets.view import WHOLE, View, enlarge
from models.aand import AAND
from utils.data.image_store import FileStack, Stack
from utils.detection.answers import require_finite
from utils.metrics import evaluate
from utils.system.files import in_parallel
from utils.system.processes import ALONE, World


@dataclass(frozen=True)
class TestSet:
    """Decoded test images uint8 (N, S, S, 3), labels (N,), masks uint8 (N, S, S) or None where some are missing.

    The images are as `view` shows them, the masks whole. paths: of the images; none of synthetic ones.
    """

    images: Stack
    labels: np.ndarray
    masks: np.ndarray | None
    view: View = WHOLE
    paths: Sequence[Path] = ()

    @classmethod
    def of(cls, samples: Sequence[Sample], stacks: Sequence[Stack], view: View = WHOLE) -> TestSet:
        """From test samples and what was decoded of their `evaluation_files`."""
        images, masks = stacks
        masks = spread_masks(samples, masks)
        labels = np.array([sample.label for sample in samples])
        return cls(images, labels, None if masks is None else masks.numpy(), view, paths_of(samples))

    def pictures(self, samples: Sequence[Sample], workers: int) -> Stack:
        """The whole images (N, S, S, 3) to be looked at, whatever the model is shown of them."""
        whole = View(levels=self.view.levels)
        if self.view == whole:
            return self.images
        return FileStack(image_files(paths_of(samples), whole), self.images.shape[1], workers)


@dataclass(frozen=True)
class Prediction:
    """What a model says of a test set: anomaly maps float32 (N, S, S) of the whole images, and image scores (N,)."""

    maps: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, model: AAND, test_set: TestSet, batch_size: int, world: World = ALONE) -> Prediction:
        """Raises PredictionError naming the images of which the model makes no finite numbers."""
        maps, scores = predict_maps(model, test_set.images, batch_size, world)
        require_finite(maps, scores, test_set.paths)
        return cls(test_set.view.place(maps), scores)

    def evaluate(self, test_set: TestSet) -> dict[str, float]:
        """The metrics that can be computed, as fractions."""
        return evaluate(test_set.labels, self.scores, test_set.masks, self.maps)

    @classmethod
    def metrics(cls, model: AAND, test_set: TestSet, batch_size: int, world: World) -> dict[str, float]:
        """The metrics of a model whose maps the processes compute together; the first alone makes metrics of them."""
        prediction = cls.of(model, test_set, batch_size, world)
        return world.from_first(lambda: prediction.evaluate(test_set))

    def evaluate_native(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The same with each mask as its file has it, and the maps enlarged to it (good images: to the image)."""
        labels = np.array([sample.label for sample in samples])
        if any(sample.label and sample.mask_path is None for sample in samples):
            return evaluate(labels, self.scores, None, self.maps)
        masks = [
            load_mask(sample.mask_path) if sample.label else np.zeros(read_size(sample.image_path), np.uint8)
            for sample in samples
        ]
        maps = [enlarge(anomaly_map, mask.shape) for anomaly_map, mask in zip(self.maps, masks, strict=True)]
        return evaluate(labels, self.scores, masks, maps)


def find_lost_regions(
    samples: Sequence[Sample], size: int, workers: int, read: Callable[[Path], np.ndarray] = load_mask
) -> dict[str, int]:
    """How many anomalous regions of each image have no pixel at image_size, of images where any has none."""
    masked = [sample for sample in samples if sample.label and sample.mask_path]
    lost = in_parallel(lambda sample: lost_regions(read(sample.mask_path), size), masked, workers)
    return {sample.name: number for sample, number in zip(masked, lost, strict=True) if number}


def warn_of_lost_regions(lost: Mapping[str, Mapping[str, int]], size: int) -> None:
    """Say on stderr which categories have anomalous regions that the metrics at image_size do not see."""
    for category, images in lost.items():
        if not images:
            continue
        regions = f"{count(sum(images.values()), 'anomalous region')} in {count(len(images), 'image')}"
        print(
            f"warning: {printable(category)}: {regions} (e.g. {printable(next(iter(images)))}) have no pixel left at "
            f"{size} px: pixel metrics and PRO do not see them; --resolution native does",
            file=sys.stderr,
        )


def fingerprint(samples: Sequence[Sample], root: Path) -> dict[str, Any]:
    """Number of test files, and the SHA-256 of the sorted list of image paths below `root`, one a line.

    Figures of two runs are of the same images where these are equal.
    """
    names = sorted(sample.image_path.relative_to(root).as_posix() for sample in samples)
    listed = "\n".join(names).encode(errors="surrogateescape")
    return {"count": len(names), "sha256": hashlib.sha256(listed).hexdigest()}


@torch.inference_mode()
def predict_maps(
    model: AAND, images: Tensor, batch_size: int, world: World = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Anomaly maps float32 (N, S, S) and scores (N,) of uint8 images (N, S, S, 3), or what is sliced like them.

    Several processes share the batches, which are those of a single one, and each gets all maps.
    """
    model.eval()
    starts = range(0, len(images), batch_size)

    def predict() -> list[tuple[Tensor, Tensor]]:
        found = []
        for start in starts[world.share(len(starts))]:
            batch = images[start : start + batch_size].permute(0, 3, 1, 2)
            anomaly_map, anomaly_score = model(model.normalise(batch))
            found.append((anomaly_map[:, 0].cpu(), anomaly_score.cpu()))
        return found

    maps, scores = zip(*chain(*world.gather(world.together(predict))), strict=True)
    return torch.cat(maps).numpy(), torch.cat(scores).numpy()
