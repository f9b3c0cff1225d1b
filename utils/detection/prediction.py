"""Anomaly maps and scores of images, whatever runs the model: the one way from images to maps.

    predictor = Predictor.of(model, view, batch_size=16)         # or load_predictor(run.category("bottle"))
    prediction = predictor.maps(images)                          # uint8 (N, h, w, 3) -> float32 (N, h, w), (N,)

Images of several windows (datasets/view.py) come with all of these, one after the other: N images of K windows are
uint8 (N * K, h, w, 3).

Every map and score is a finite number: NaN is above no threshold, and whatever lets it pass calls a defect good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datasets.names import printable
from datasets.problems import count
from datasets.sizes import Size, height_width
from datasets.view import WHOLE, View
from utils.runs.folder import RunCategory
from utils.system.errors import PredictionError
from utils.system.packages import CORE, require

if TYPE_CHECKING:  # model files are run where there is no torch
    from models.aand import AAND
    from utils.system.processes import World

MOST_NAMED = 5  # images that an error names

Compute = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # uint8 (N, H, W, 3) -> maps (N, h, w), scores (N,)


class Prediction(NamedTuple):
    maps: np.ndarray  # float32 (N, H, W), of whole images
    scores: np.ndarray  # (N,), of several windows the highest


@dataclass(frozen=True)
class Predictor:
    """A model, what it is shown of images, and how many of them at a time."""

    compute: Compute  # the model on one batch, whatever runs it
    image_size: Size | None  # of what it is shown; None if it takes whole images
    view: View = WHOLE
    batch_size: int = 16  # images, or windows of them
    word: str | None = None  # which model it is (`model_word`), if that is known

    @classmethod
    def of(cls, model: AAND, image_size: Size, view: View = WHOLE, batch_size: int = 16, word: str | None = None):
        """The predictor of a PyTorch model, on the device where it is, in eval mode."""
        import torch

        @torch.inference_mode()
        def compute(images: np.ndarray | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
            model.eval()
            batch = torch.as_tensor(images).permute(0, 3, 1, 2)  # (N, 3, S, S)
            anomaly_map, anomaly_score = model(model.normalise(batch))
            return anomaly_map[:, 0].cpu().numpy(), anomaly_score.cpu().numpy()

        return cls(compute, image_size, view, batch_size, word)

    def maps(self, images: Any, names: Sequence[str | Path] = (), world: World | None = None) -> Prediction:
        """The prediction for what is shown of images: uint8 (N * windows, h, w, 3), or what is sliced so.

        Several processes share the batches of a single one, and each gets all. Raises as `require_finite`.
        """
        step = max(1, self.batch_size // self.view.windows) * self.view.windows
        starts = range(0, len(images), step)

        def predict(own: slice) -> list[Prediction]:
            return [self.batch_maps(images[start : start + step]) for start in starts[own]]

        if world is None:
            batches = predict(slice(None))
        else:
            batches = chain(*world.all_gather(world.together(lambda: predict(world.share(len(starts))))))
        prediction = Prediction(*map(np.concatenate, zip(*batches, strict=True)))
        require_finite(*prediction, names)
        return prediction

    def in_batches(self, paths: Sequence[Path], images: Any) -> Iterator[tuple[Sequence[Path], np.ndarray]]:
        """Images uint8 (N * windows, h, w, 3), or what is sliced so, with their paths (N,), so many at a time as
        `maps` computes at once."""
        windows = self.view.windows
        step = max(1, self.batch_size // windows)
        for start in range(0, len(paths), step):
            own = slice(start * windows, (start + step) * windows)
            yield paths[start : start + step], np.asarray(images[own])

    def batch_maps(self, images: np.ndarray) -> Prediction:
        """`maps` of whole images at once, NaN unchecked. Raises PredictionError for answers of other shapes."""
        parts = range(0, len(images), self.batch_size)
        answers = [self._answer(images[start : start + self.batch_size]) for start in parts]
        maps, scores = map(np.concatenate, zip(*answers, strict=True))
        return Prediction(self.view.place(maps), scores.reshape(-1, self.view.windows).max(axis=1))

    def _answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, scores = self.compute(images)
        check_shapes(maps, scores, len(images), None if self.image_size is None else height_width(self.image_size))
        return maps, scores


def load_predictor(files: RunCategory, device: Any = "cpu", batch_size: int = 16) -> tuple[Predictor, AAND, float]:
    """The predictor of a trained category, its model, and the seconds that its training took.

    Raises RunError and CheckpointError for files, UsageError for the device, MissingPackage without torch.
    """
    instead = f"{CORE}, or give an .onnx or .xml file that scripts/export.py made of it elsewhere"
    require("torch", f"{printable(files.run.folder)}, a run folder,", instead)
    from utils.runs.checkpoint import model_word
    from utils.system.device import pick_device

    picked = pick_device(str(device))
    (model, seconds), view = files.load_model(), files.view
    word = model_word(model, view)  # before layers are merged
    model = model.to(picked).optimize_for_inference()
    return Predictor.of(model, files.run.settings.image_size, view, batch_size, word), model, seconds


def check_shapes(maps: np.ndarray, scores: np.ndarray, images: int, sides: tuple[int, int] | None = None) -> None:
    """Raise PredictionError unless there are real maps (images, H, W), none empty, and scores (images,). sides: H and W
    of the maps, if they are known."""
    maps, scores = np.asarray(maps), np.asarray(scores)
    real = {maps.dtype.kind, scores.dtype.kind} == {"f"} and maps.ndim == 3 and 0 not in maps.shape
    if not real or len(maps) != images or scores.shape != (images,) or sides not in (None, maps.shape[1:]):
        raise PredictionError(
            f"the model answers with maps {maps.dtype} {maps.shape} and scores {scores.dtype} {scores.shape}, not with "
            f"a map and a score for each of {count(images, 'image')}"
        )


def require_finite(maps: np.ndarray, scores: np.ndarray, names: Sequence[str | Path] = ()) -> None:
    """Raise PredictionError, with the images' names or else numbers, for NaN or infinite values."""
    wrong = [index for index, of in enumerate(zip(maps, scores, strict=True)) if not is_finite(*of)]
    if wrong:
        named = [printable(names[index]) if index < len(names) else f"number {index + 1}" for index in wrong]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        raise PredictionError(
            f"the model gives NaN or infinite values for {count(len(wrong), 'image')}: "
            f"{', '.join(named[:MOST_NAMED])}{more}"
        )


def is_finite(anomaly_map: np.ndarray, score: float) -> bool:
    """Tell whether the map of an image and its score are a result."""
    return bool(np.isfinite(score) and np.isfinite(anomaly_map).all())
