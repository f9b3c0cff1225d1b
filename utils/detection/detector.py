"""A trained category as a detector of anomalies: image files, Pillow images or arrays in, scores and maps out.

    detector = load_detector("runs/NAME", "bottle")                # or a file of scripts/export.py, without torch
    found = detector.predict("photo.jpg")                          # a list of images: a list of detections
    found.score, found.is_anomalous, found.p_value, found.regions
    found.anomaly_map                                              # float32 (H, W), of the photo's own size
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from datasets.base import MAX_PIXELS, as_rgb
from datasets.names import printable
from datasets.view import WHOLE, View, enlarge
from utils.detection.answers import check_shapes, is_finite, require_finite
from utils.detection.model_file import RUNTIMES, ExportedModel
from utils.detection.regions import Region, find_regions
from utils.detection.thresholds import LargestPixels, Thresholds, read_thresholds
from utils.runs.folder import Run, open_runs, trained_categories
from utils.system.device import pick_device
from utils.system.errors import ModelFileError, PredictionError, RunError, UsageError
from utils.system.missing import CORE
from utils.system.packages import require

if TYPE_CHECKING:  # model files are run where there is no torch
    import torch

AnyImage = str | PathLike | Image.Image | np.ndarray
Remarks = Sequence[tuple[str, str]]  # kinds, and details of an image
Compute = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # uint8 (N, H, W, 3) -> maps (N, S, S), scores (N,)


@dataclass(frozen=True)
class Shown:
    """What the model is shown of an image, uint8 (H, W, 3), the image's own height and width, and what may be wrong
    with its file."""

    pixels: np.ndarray
    size: tuple[int, int]
    remarks: Remarks = ()


@dataclass(frozen=True)
class Detection:
    """What a model says of one image. Without thresholds `is_anomalous` and `p_value` are None.

    regions: of an anomalous image, the highest score first; of any other none.
    """

    score: float
    is_anomalous: bool | None
    p_value: float | None
    regions: list[Region]
    model_map: np.ndarray  # float32 (S, S), of the whole image
    size: tuple[int, int]  # height and width of the image

    @property
    def anomaly_map(self) -> np.ndarray:
        """The map at the image's own size, float32 (H, W), enlarged bilinearly: made when it is asked for, since of a
        large photograph it takes 100 MB."""
        return enlarge(self.model_map, self.size)


@dataclass(frozen=True)
class Detector:
    """How images are shown to a model, and what its scores mean.

    compute: the model, whatever runs it; image_size: of what it is shown, None if it takes whole images; thresholds: of
    its good images, or None; `threshold`: one of your own for scores and maps, in place of theirs; most_pixels: that
    an image file may have; category: its name, if it has one; word: what the model is, of `model_word`, if it is known.
    Raises UsageError for a threshold that is no finite number.
    """

    compute: Compute
    image_size: int | None
    view: View = WHOLE
    thresholds: Thresholds | None = None
    threshold: float | None = None
    batch_size: int = 16
    most_pixels: int = MAX_PIXELS
    category: str | None = None
    word: str | None = None

    def __post_init__(self):
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise UsageError(f"a threshold of {self.threshold} is no finite number")

    @property
    def image_threshold(self) -> float | None:
        return self.threshold if self.threshold is not None else self.thresholds and self.thresholds.image_threshold

    @property
    def pixel_threshold(self) -> float | None:
        return self.threshold if self.threshold is not None else self.thresholds and self.thresholds.pixel_threshold

    def at(self, far: float) -> Detector:
        """The same detector with thresholds for another rate of false alarms. RunError if it has none."""
        if self.thresholds is None:
            raise RunError("there are no thresholds to move; set them with scripts/calibrate.py")
        return replace(self, thresholds=self.thresholds.at(far))

    def predict(self, images: AnyImage | Sequence[AnyImage]) -> Detection | list[Detection]:
        """The detection of one image, or those of a list of them.

        An image is the path of a file, a Pillow image, or an array uint8 or uint16 of (H, W), (H, W, 3) RGB or
        (H, W, 4). Raises DataError for one that cannot be used, PredictionError for one of which the model makes no
        finite numbers.
        """
        if isinstance(images, AnyImage):
            return self.predict([images])[0]
        parts = (images[start : start + self.batch_size] for start in range(0, len(images), self.batch_size))
        found = [one for part in parts for one in self.detect([self.show(image) for image in part])]
        for one in found:
            if isinstance(one, PredictionError):
                raise one
        return found

    def show(self, image: AnyImage) -> Shown:
        """What the model is to be shown of an image. Raises DataError if it cannot be used."""
        remarks = []
        if isinstance(image, str | PathLike):
            pixels = self.view.load(Path(image), self.most_pixels, lambda *remark: remarks.append(remark))
        else:
            pixels = as_rgb(image, self.view.levels)
        shown = pixels if self.image_size is None else self.view.show(pixels, self.image_size)
        return Shown(shown, pixels.shape[:2], remarks)

    def detect(self, shown: Sequence[Shown]) -> list[Detection | PredictionError]:
        """The detections of a batch; in the place of one that cannot be, why."""
        try:
            maps, scores = self.score(np.stack([image.pixels for image in shown]))
        except ModelFileError as error:  # of a single image: files are run one by one
            return [PredictionError(str(error))] * len(shown)
        return [self._judge(*one) for one in zip(maps, scores.tolist(), [s.size for s in shown], strict=True)]

    def score(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Maps (N, S, S) of the whole images, and scores (N,), of what is shown, uint8 (N, H, W, 3).

        Raises PredictionError for answers of other shapes. They may hold NaN: what uses them must look.
        """
        maps, scores = self.compute(pixels)
        check_shapes(maps, scores, len(pixels))
        return self.view.place(maps), scores

    def _judge(self, *one: Any) -> Detection | PredictionError:
        try:
            return self.judge(*one)
        except PredictionError as error:
            return error

    def judge(self, model_map: np.ndarray, score: float, size: tuple[int, int]) -> Detection:
        """What the map (S, S) of a whole image of `size` (height, width), and its score, mean by the thresholds.

        Raises PredictionError where they are no finite numbers.
        """
        if not is_finite(model_map, score):
            raise PredictionError("the model gives NaN or infinite values for it")
        threshold = self.image_threshold
        anomalous = None if threshold is None else score > threshold
        regions = find_regions(model_map, self.pixel_threshold, size) if anomalous else []
        p_value = self.thresholds.p_value(score) if self.thresholds else None
        return Detection(score, anomalous, p_value, regions, model_map, size)


def load_detector(
    model: str | PathLike, category: str | None = None, seed: int | None = None,
    device: torch.device | str = "cpu", batch_size: int = 16, with_thresholds: bool = True,
) -> Detector:
    """The detector of a trained category: of a run folder, or of an .onnx or .xml file of scripts/export.py.

    Of a run with several seeds it is that of `seed`, or the first. A file is run by onnxruntime or OpenVINO, without
    torch, on the CPU and one whole image at a time: batches would have to be of one size, and gain little there.
    with_thresholds: those of a run are not looked at without, whatever they are: who sets them needs none.

    Raises RunError for a run or thresholds that cannot be used, and where a category or seed must be named;
    CheckpointError for the run's files; ModelFileError, MissingPackage or UsageError for a model file.
    """
    path = Path(model)
    if path.suffix in RUNTIMES and not path.is_dir():
        return _of_file(path, category, seed, str(device))
    return _of_run(path, category, seed, str(device), batch_size, with_thresholds)


def _of_file(path: Path, category: str | None, seed: int | None, device: str) -> Detector:
    if seed is not None:
        raise UsageError(f"--seed {seed}: {path} holds one model; seeds are chosen when it is exported")
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: {path} is run on the CPU; for a GPU give the run folder")
    model = ExportedModel(path)
    if category not in (None, model.facts.category):
        raise UsageError(f"--category {category}: {path} holds {model.facts.category}")
    facts = model.facts
    whole = View(levels=facts.view.levels)  # the file crops and stretches itself
    return Detector(model.run, None, whole, facts.thresholds, batch_size=1, category=facts.category)


def _of_run(
    run: Path, category: str | None, seed: int | None, device: str, batch_size: int, with_thresholds: bool
) -> Detector:
    category = pick_category(run, category)
    picked_run = pick_seed(run, seed)
    size = picked_run.settings.image_size
    instead = f"{CORE}, or give an .onnx or .xml file that scripts/export.py made of it elsewhere"
    torch = require("torch", f"{printable(run)}, a run folder,", instead)
    from utils.detection.prediction import predict_maps
    from utils.runs.checkpoint import model_word

    picked = pick_device(device)
    files = picked_run.category(category)
    model, _ = files.load_model()
    view = files.view
    word = model_word(model, view)
    thresholds = read_thresholds(picked_run.folder, category, word) if with_thresholds else None
    model = model.to(picked).optimize_for_inference()

    def compute(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return predict_maps(model, torch.from_numpy(pixels), len(pixels))

    return Detector(compute, size, view, thresholds, batch_size=batch_size, category=category, word=word)


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


def calibrate_detector(
    detector: Detector, images: Iterable[np.ndarray], far: float, source: str, names: Sequence[str | Path] = ()
) -> Thresholds:
    """Thresholds by what good images score that training has not seen: batches uint8 (N, S, S, 3) as they are shown.

    names: of the images, in their order. Raises PredictionError for those of which the model makes no finite numbers.
    """
    scores, pixels = [], LargestPixels()
    for batch in images:
        maps, found = detector.score(batch)
        require_finite(maps, found, names[len(scores) :])
        scores += found.tolist()
        pixels.add(maps)
    return Thresholds.from_scores(scores, pixels, far, source, detector.word)
