"""Metrics that single data sets define besides those of all: MVTec LOCO AD's and MVTec AD 2's (EXTRA_METRICS)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from datasets import DATASETS
from datasets.base import DataError, Sample
from datasets.files import image_files
from datasets.saturation import DEFECTS_CONFIG, Region, read_regions, read_saturations
from datasets.sizes import Size
from utils.data.image_store import ImageStore
from utils.detection.prediction import Prediction, Predictor
from utils.metrics.checks import Images
from utils.metrics.definitions import UndefinedMetric, aupro, image_auroc
from utils.metrics.extra import LOW_FPR_LIMIT, f1_above, spro
from utils.runs.folder import Run
from utils.system.files import in_parallel

KINDS = ("logical", "structural")  # of LOCO's anomalies
DEVIATIONS = 3  # of AD 2's threshold above the mean

Samples = Mapping[str, Sequence[Sample]]  # of each category
Measure = Callable[[Images | None, Images, bool], dict[str, float]]  # masks, maps, whether at native resolution


class ExtraMetrics:
    """Extra metrics of the categories of a run: here none. A subclass reads what they need of all categories at once,
    so that what is wrong is told before anything is scored; it raises DataError."""

    def __init__(self, run: Run, samples: Samples, root: Path, store: ImageStore):
        self.samples = samples

    def measure(self, category: str, predictor: Predictor, prediction: Prediction) -> Measure:
        """The function that gives a model's metrics that can be computed."""
        return lambda masks, maps, native: {}


class LOCOMetrics(ExtraMetrics):
    """I-AUROC and saturated PRO of logical and of structural anomalies, each with all good images, and their means."""

    def __init__(self, run: Run, samples: Samples, root: Path, store: ImageStore):
        super().__init__(run, samples, root, store)
        self.workers, self.saturations = store.workers, {}
        for category in samples:
            with suppress(DataError):  # the check of the data has told
                self.saturations[category] = read_saturations(root / category / DEFECTS_CONFIG)
        sizes = {category: run.category(category).view.map_size(store.size) for category in self.saturations}
        self.regions = {category: self._read(category, size) for category, size in sizes.items()}

    def measure(self, category: str, predictor: Predictor, prediction: Prediction) -> Measure:
        def measure(masks: Images | None, maps: Images, native: bool) -> dict[str, float]:
            regions = self.regions.get(category)
            if native and regions is not None:
                regions = self._read(category)
            return measure_kinds(self.samples[category], prediction.scores, regions, maps)

        return measure

    def _read(self, category: str, size: Size | None = None) -> list[list[Region]]:
        """The regions of each image of a category, none of good ones."""
        saturations = self.saturations[category]

        def read(sample: Sample) -> list[Region]:
            return read_regions(sample.mask_path, saturations, size) if sample.mask_path else []

        return list(in_parallel(read, self.samples[category], self.workers))


def measure_kinds(
    samples: Sequence[Sample], scores: np.ndarray, regions: Sequence[Sequence[Region]] | None, maps: Images
) -> dict[str, float]:
    """LOCO's metrics that can be computed; regions: those of each sample, None where they are not known."""
    metrics = {}
    for kind in KINDS:
        kept = [index for index, sample in enumerate(samples) if not sample.label or kind in sample.defect.lower()]
        labels = np.array([samples[index].label for index in kept])
        with suppress(UndefinedMetric):
            metrics[f"image_auroc_{kind}"] = image_auroc(labels, scores[kept])
        with suppress(UndefinedMetric):
            if regions is not None:
                metrics[f"spro_{kind}"] = spro([regions[index] for index in kept], [maps[index] for index in kept])
    for metric in ("image_auroc", "spro"):
        values = [metrics[name] for kind in KINDS if (name := f"{metric}_{kind}") in metrics]
        if len(values) == len(KINDS):
            metrics[f"{metric}_mean"] = float(np.mean(values))
    return metrics


class AD2Metrics(ExtraMetrics):
    """PRO up to FPR 0.05, and the F1 of pixels above the mean of the validation images' maps plus three standard
    deviations: maps of `image_size`, at native resolution too."""

    def __init__(self, run: Run, samples: Samples, root: Path, store: ImageStore):
        super().__init__(run, samples, root, store)
        reader = DATASETS["mvtec_ad2"]
        self.paths = {category: paths for category in samples if (paths := reader.list_validation(root / category))}
        views = {category: run.category(category).view for category in self.paths}
        self.images = store.open({name: [image_files(paths, views[name])] for name, paths in self.paths.items()})

    def measure(self, category: str, predictor: Predictor, prediction: Prediction) -> Measure:
        threshold = None
        if category in self.paths:
            [images] = self.images(category)
            values = predictor.maps(images, self.paths[category]).maps.astype(np.float64)
            threshold = values.mean() + DEVIATIONS * values.std()

        def measure(masks: Images | None, maps: Images, native: bool) -> dict[str, float]:
            metrics = {}
            with suppress(UndefinedMetric):
                if masks is not None:
                    metrics["aupro_005"] = aupro(masks, maps, LOW_FPR_LIMIT)
                    if threshold is not None:
                        metrics["segf1"] = f1_above(masks, maps, threshold)
            return metrics

        return measure


EXTRA_METRICS = {"mvtec_loco": LOCOMetrics, "mvtec_ad2": AD2Metrics}  # by the name of the layout
