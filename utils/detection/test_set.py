"""The test set of a category in memory, its metrics, and the regions that they do not see."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.base import Sample, load_mask, read_size
from datasets.files import image_files, paths_of, spread_masks
from datasets.masks import lost_regions
from datasets.names import printable
from datasets.problems import count
from datasets.sizes import Size, in_words
from datasets.view import WHOLE, View, enlarge
from models.aand import AAND
from utils.data.image_store import FileStack, Stack
from utils.detection.prediction import Prediction, Predictor
from utils.metrics import evaluate
from utils.system.files import in_parallel
from utils.system.processes import World


@dataclass(frozen=True)
class TestSet:
    """Decoded test images uint8 (N * windows, h, w, 3), labels (N,), masks uint8 (N, H, W) or None where some are
    missing.

    The images are as `view` shows them, the masks of the size of its maps. paths: of the images; none of synthetic
    ones.
    """

    images: Stack
    labels: np.ndarray
    masks: np.ndarray | None
    view: View = WHOLE
    paths: Sequence[Path] = ()

    @classmethod
    def of(cls, samples: Sequence[Sample], stacks: Sequence[Stack], view: View = WHOLE) -> TestSet:
        """The test set of samples, given what was decoded of their `evaluation_files`."""
        images, masks = stacks
        masks = spread_masks(samples, masks)
        labels = np.array([sample.label for sample in samples])
        return cls(images, labels, None if masks is None else masks.numpy(), view, paths_of(samples))

    def pictures(self, samples: Sequence[Sample], workers: int) -> Stack:
        """The whole images (N, H, W, 3) to be looked at, of the size of the maps, whatever the model is shown of
        them."""
        whole = View(levels=self.view.levels)
        if self.view == whole:
            return self.images
        return FileStack(image_files(paths_of(samples), whole), self.map_size, workers)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        return self.view.map_size(self.images.shape[1:3])

    def predict(self, model: AAND, batch_size: int, world: World | None = None) -> Prediction:
        """The prediction of a model as it is; raises as `Predictor.maps`."""
        return Predictor.of(model, self.images.shape[1:3], self.view, batch_size).maps(self.images, self.paths, world)

    def metrics(self, model: AAND, batch_size: int, world: World) -> dict[str, float]:
        """The metrics of a model whose maps the processes compute together."""
        prediction = self.predict(model, batch_size, world)
        return world.broadcast(lambda: self.evaluate(prediction))

    def evaluate(self, prediction: Prediction) -> dict[str, float]:
        """The metrics that can be computed, as fractions."""
        return evaluate(self.labels, prediction.scores, self.masks, prediction.maps)

    def at_native(
        self, prediction: Prediction, samples: Sequence[Sample]
    ) -> tuple[list[np.ndarray] | None, Sequence[np.ndarray]]:
        """Each mask as its file has it, and the maps enlarged to it (good images: to the image); None and the maps as
        they are where some masks are missing."""
        if any(sample.label and sample.mask_path is None for sample in samples):
            return None, prediction.maps
        masks = [
            load_mask(sample.mask_path) if sample.label else np.zeros(read_size(sample.image_path), np.uint8)
            for sample in samples
        ]
        maps = [enlarge(anomaly_map, mask.shape) for anomaly_map, mask in zip(prediction.maps, masks, strict=True)]
        return masks, maps


def find_lost_regions(
    samples: Sequence[Sample], size: Size, workers: int, read: Callable[[Path], np.ndarray] = load_mask
) -> dict[str, int]:
    """The number of anomalous regions of each image that have no pixel in a mask of `size`, for images with any."""
    masked = [sample for sample in samples if sample.label and sample.mask_path]
    lost = in_parallel(lambda sample: lost_regions(read(sample.mask_path), size), masked, workers)
    return {sample.name: number for sample, number in zip(masked, lost, strict=True) if number}


def warn_of_lost_regions(lost: Mapping[str, Mapping[str, int]], sizes: Mapping[str, Size]) -> None:
    """Say on stderr which categories have anomalous regions that the metrics at the size of their maps do not see."""
    for category, images in lost.items():
        if not images:
            continue
        regions = f"{count(sum(images.values()), 'anomalous region')} in {count(len(images), 'image')}"
        print(
            f"warning: {printable(category)}: {regions} (e.g. {printable(next(iter(images)))}) have no pixel left at "
            f"{in_words(sizes[category])} px: pixel metrics and PRO do not see them; those at native resolution do",
            file=sys.stderr,
        )


def fingerprint(samples: Sequence[Sample], root: Path) -> dict[str, Any]:
    """Number of test files, and the SHA-256 of the sorted list of image paths below `root`, one a line."""
    names = sorted(sample.image_path.relative_to(root).as_posix() for sample in samples)
    listed = "\n".join(names).encode(errors="surrogateescape")
    return {"count": len(names), "sha256": hashlib.sha256(listed).hexdigest()}
