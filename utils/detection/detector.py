"""A trained category as a detector of anomalies: image files, Pillow images or arrays in, scores and maps out.

    detector = load_detector("runs/NAME", "bottle")                # or a file of scripts/export.py, without torch
    detection = detector.predict("photo.jpg")                      # a list of images: a list of detections
    detection.score, detection.verdict, detection.p_value, detection.regions
    detection.anomaly_map                                          # float32 (H, W), of the photo's own size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from datasets.base import MAX_PIXELS, as_rgb
from datasets.view import View, enlarge
from utils.detection.model_file import RUNTIMES, ExportedModel
from utils.detection.prediction import Predictor, is_finite, load_predictor
from utils.detection.thresholds import ANOMALOUS, GOOD, Thresholds, read_thresholds
from utils.runs.folder import Run, open_runs, trained_categories
from utils.system.errors import ModelFileError, PredictionError, RunError, UsageError

if TYPE_CHECKING:  # model files are run where there is no torch
    import torch

AnyImage = str | PathLike | Image.Image | np.ndarray
Remarks = Sequence[tuple[str, str]]  # kinds, and details of an image


@dataclass(frozen=True)
class ModelInput:
    """An image as the model is shown it."""

    pixels: np.ndarray  # uint8 (windows, h, w, 3)
    size: tuple[int, int]  # its own height and width
    remarks: Remarks = ()  # of what may be wrong with its file


@dataclass(frozen=True)
class Region:
    """A part of an image whose anomaly map is above the pixel threshold, in the image's own pixels."""

    left: int
    top: int
    right: int  # just outside, as the next
    bottom: int
    score: float  # the map's maximum in it
    area: int


@dataclass(frozen=True)
class Detection:
    """The result of one image."""

    score: float
    verdict: str | None  # GOOD, LOOK (at it: it may be either) or ANOMALOUS; None without thresholds, as the next
    p_value: float | None
    regions: list[Region]  # the highest score first; of a good image none
    model_map: np.ndarray  # float32 (h, w), of the whole image
    size: tuple[int, int]  # height and width of the image

    @property
    def is_anomalous(self) -> bool | None:
        """Tell whether the verdict is ANOMALOUS; None without thresholds."""
        return None if self.verdict is None else self.verdict == ANOMALOUS

    @property
    def anomaly_map(self) -> np.ndarray:
        """The map at the image's own size, float32 (H, W), enlarged bilinearly: of a large photograph 100 MB."""
        return enlarge(self.model_map, self.size)


@dataclass(frozen=True)
class Detector(Predictor):
    """A predictor that reads images of any kind, and knows what their scores mean.

    Raises UsageError for a `threshold` that is no finite number.
    """

    thresholds: Thresholds | None = None  # of its good images
    threshold: float | None = None  # one of your own for scores and maps, in place of theirs
    most_pixels: int = MAX_PIXELS  # that an image file may have
    category: str | None = None
    shown: View | None = None  # of whole images, where the model crops them itself

    def __post_init__(self):
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise UsageError(f"a threshold of {self.threshold} is no finite number")

    def heat_weight(self, shape: tuple[int, int]) -> np.ndarray | None:
        """How much of a heat map is to be seen over an image of this height and width, as of `View.weight`."""
        return (self.shown or self.view).weight(shape)

    @property
    def image_threshold(self) -> float | None:
        return self.threshold if self.threshold is not None else self.thresholds and self.thresholds.image_threshold

    @property
    def pixel_threshold(self) -> float | None:
        return self.threshold if self.threshold is not None else self.thresholds and self.thresholds.pixel_threshold

    def at(self, far: float | None = None, look: float | None = None) -> Detector:
        """A detector with thresholds for other rates of false alarms, and of images to look at; RunError if it has
        none."""
        if self.thresholds is None:
            raise RunError("there are no thresholds to move; set them with scripts/calibrate.py")
        return replace(self, thresholds=self.thresholds.at(far, look))

    def predict(self, images: AnyImage | Sequence[AnyImage]) -> Detection | list[Detection]:
        """The detection of one image, or those of a list of them.

        An image is the path of a file, a Pillow image, or an array uint8 or uint16 of (H, W), (H, W, 3) RGB or
        (H, W, 4). Raises DataError for one that cannot be used, PredictionError if the model gives no finite numbers.
        """
        if isinstance(images, AnyImage):
            return self.predict([images])[0]
        batches = (images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size))
        detections = [one for batch in batches for one in self.detect([self.prepare(image) for image in batch])]
        for one in detections:
            if isinstance(one, PredictionError):
                raise one
        return detections

    def prepare(self, image: AnyImage) -> ModelInput:
        """An image as the model is to be shown it. Raises DataError if it cannot be used."""
        remarks = []
        if isinstance(image, str | PathLike):
            pixels = self.view.load(Path(image), self.most_pixels, lambda *remark: remarks.append(remark))
        else:
            pixels = as_rgb(image, self.view.levels)
        shown = pixels[None] if self.image_size is None else self.view.windows_of(pixels, self.image_size)
        return ModelInput(shown, pixels.shape[:2], remarks)

    def detect(self, inputs: Sequence[ModelInput]) -> list[Detection | PredictionError]:
        """The detections of a batch; an error in the place of each that cannot be made."""
        try:
            maps, scores = self.batch_maps(np.concatenate([one.pixels for one in inputs]))
        except ModelFileError as error:  # of a single image: files are run one by one
            return [PredictionError(str(error))] * len(inputs)
        detections: list[Detection | PredictionError] = []
        for model_map, score, one in zip(maps, scores.tolist(), inputs, strict=True):
            try:
                detections.append(self.judge(model_map, score, one.size))
            except PredictionError as error:
                detections.append(error)
        return detections

    def judge(self, model_map: np.ndarray, score: float, size: tuple[int, int]) -> Detection:
        """Judge the map (h, w) of a whole image of `size` (height, width), and its score, by the thresholds.

        Raises PredictionError where they are no finite numbers.
        """
        if not is_finite(model_map, score):
            raise PredictionError("the model gives NaN or infinite values for it")
        verdict = self._verdict(score)
        threshold = self.region_threshold(verdict)
        regions = [] if threshold is None else find_regions(model_map, threshold, size)
        p_value = self.thresholds.p_value(score) if self.thresholds else None
        return Detection(score, verdict, p_value, regions, model_map, size)

    def region_threshold(self, verdict: str | None) -> float | None:
        """The threshold of the regions that are shown of images with a verdict; None if none are."""
        if self.threshold is not None:
            return self.threshold if verdict == ANOMALOUS else None
        return self.thresholds and self.thresholds.region_threshold(verdict)

    def _verdict(self, score: float) -> str | None:
        if self.threshold is not None:
            return ANOMALOUS if score > self.threshold else GOOD
        return self.thresholds and self.thresholds.verdict(score)


def load_detector(
    model: str | PathLike, category: str | None = None, seed: int | None = None,
    device: torch.device | str = "cpu", batch_size: int = 16,
) -> Detector:
    """The detector of a trained category: of a run folder, or of an .onnx or .xml file of scripts/export.py.

    Of a run with several seeds it is that of `seed`, or the first. A file is run without torch, on the CPU and one
    whole image at a time: batches would have to be of one size, and gain little there.

    Raises RunError for a run or thresholds that cannot be used, and where a category or seed must be named;
    CheckpointError for the run's files; ModelFileError, MissingPackage or UsageError for a model file.
    """
    path = Path(model)
    if path.suffix not in RUNTIMES or path.is_dir():
        category, run = pick_category(path, category), pick_seed(path, seed)
        predictor, _, _ = load_predictor(run.category(category), device, batch_size)
        thresholds = read_thresholds(run.folder, category, predictor.word)
        return Detector(**vars(predictor), thresholds=thresholds, category=category)
    if seed is not None:
        raise UsageError(f"`seed` {seed}: {path} holds one model; seeds are chosen when it is exported")
    if str(device) not in ("auto", "cpu"):
        raise UsageError(f"`device` {device}: {path} is run on the CPU; for a GPU give the run folder")
    model = ExportedModel(path)
    facts = model.facts
    if category not in (None, facts.category):
        raise UsageError(f"`category` {category}: {path} holds {facts.category}")
    whole = View(levels=facts.view.levels)  # the file crops and stretches itself
    of_file = {"thresholds": facts.thresholds, "category": facts.category, "shown": facts.view}
    return Detector(model.run, None, whole, batch_size=1, **of_file)


def pick_category(run: Path, category: str | None) -> str:
    """The category asked for, or the run's only one; RunError if it is not trained, or there are several."""
    trained = trained_categories(run)
    if not trained:
        raise RunError(f"{run} has no category yet that is trained")
    if category is None and len(trained) > 1:
        raise RunError(f"{run} has several categories; choose one of: {', '.join(trained)}")
    if category is not None and category not in trained:
        raise RunError(f"{run} has no trained {category}; it has: {', '.join(trained)}")
    return category or trained[0]


def pick_seed(run: Path, seed: int | None) -> Run:
    """The run of a seed, or the first; RunError if there is no such seed."""
    runs = {one.settings.seed: one for one in open_runs(run)}
    if seed is not None and seed not in runs:
        raise RunError(f"{run} has no seed {seed}; it has: {', '.join(map(str, runs))}")
    return next(iter(runs.values())) if seed is None else runs[seed]


def find_regions(model_map: np.ndarray, threshold: float, size: tuple[int, int]) -> list[Region]:
    """The 8-connected parts of a map (h, w) above a threshold, in pixels of its image of `size` (height, width).

    None is too small, as the map is smooth: a small part is a hill just above the threshold. The highest comes first.
    Raises ValueError for NaN, which is above nothing.
    """
    if not is_finite(model_map, threshold):
        raise ValueError("a map or threshold with NaN or infinite values has no regions")
    above = model_map > threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    highest = np.full(count, -np.inf, np.float32)
    np.maximum.at(highest, labels[above], model_map[above])
    (height, width), (rows, columns) = size, model_map.shape
    regions = []
    for (left, top, wide, high, area), score in zip(stats[1:].tolist(), highest[1:].tolist(), strict=True):
        right, bottom = -(-(left + wide) * width // columns), -(-(top + high) * height // rows)  # rounded up
        area = max(1, round(area * height * width / (rows * columns)))
        regions.append(Region(left * width // columns, top * height // rows, right, bottom, score, area))
    return sorted(regions, key=lambda region: (-region.score, region.top, region.left))
