"""Pictures of predictions: heat maps beside the images, anomaly maps as numbers, and masks of the regions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.base import DataError
from datasets.marks import ANOMALY_MAP, ANOMALY_MASK, HEAT_MAP, png_bytes, tiff_bytes
from datasets.names import printable
from datasets.view import WHOLE
from utils.detection.detector import Detector
from utils.detection.prediction import Predictor
from utils.detection.records import Record
from utils.drawing.heat_maps import blend_heat, map_limits, save_heat_map
from utils.system.files import atomic_write, in_parallel
from utils.system.own_files import bears, may_be_replaced


@dataclass(frozen=True)
class Kind:
    """A kind of picture: the argument that asks for it, its files' suffix, and their mark."""

    argument: str
    suffix: str
    mark: str
    name: str


HEAT_MAPS = Kind("save_maps", ".png", HEAT_MAP, "heat map")
RAW_MAPS = Kind("maps_raw", ".tiff", ANOMALY_MAP, "anomaly map")
MASKS = Kind("masks", ".png", ANOMALY_MASK, "mask")
KINDS = (HEAT_MAPS, RAW_MAPS, MASKS)


class Pictures:
    """The pictures to be written of images, to `targets[kind][path]`; the first images of all set the colour scale of
    heat maps where there are no thresholds."""

    def __init__(self, targets: Mapping[Kind, Mapping[Path, Path]] | None = None):
        self.targets = dict(targets or {})
        self.limits: tuple[float, float] | None = None  # of the colour scale

    def save(self, detector: Detector, records: Sequence[Record], workers: int) -> list[Record]:
        """Write the pictures of a batch. Returns the records, those of which one could not be written with the
        error."""
        if not self.targets or not any(record.detection for record in records):
            return list(records)
        self.limits = self.limits or colour_limits(detector, records)
        return list(in_parallel(lambda record: self._save(detector, record), records, workers))

    def _save(self, detector: Detector, record: Record) -> Record:
        if not record.detection:
            return record
        anomaly_map = record.detection.anomaly_map
        threshold = detector.region_threshold(record.detection.verdict)
        outlined = None if threshold is None else anomaly_map > threshold
        for kind, targets in self.targets.items():
            target = targets[record.path]
            if os.path.lexists(target) and not may_be_replaced(target, bears(kind.mark)):  # since it was looked for
                error = f"{printable(target)} is no file that this program wrote"
                return replace(record, error=f"no {kind.name} of {printable(record.path)}: {error}")
            try:
                if kind is HEAT_MAPS:  # the image is read again, which is cheaper than to keep it
                    photograph, weight = detector.view.load(record.path), detector.heat_weight(anomaly_map.shape)
                    text = describe(record, detector)
                    save_heat_map(target, photograph, anomaly_map, outlined, self.limits, weight, text)
                    continue
                mask = np.zeros(anomaly_map.shape, bool) if outlined is None else outlined
                content = tiff_bytes(anomaly_map, kind.mark) if kind is RAW_MAPS else png_bytes(
                    mask * np.uint8(255), kind.mark
                )
                with atomic_write(target) as temporary:
                    temporary.write_bytes(content)
            except (OSError, DataError) as error:
                return replace(record, error=f"no {kind.name} of {printable(record.path)}: {error}")
        return record


def describe(record: Record, detector: Detector) -> str:
    """The caption of a heat map."""
    detection, threshold = record.detection, detector.image_threshold
    verdict = f"{detection.verdict}   " if detection.verdict else ""
    return f"{verdict}score {detection.score:.4g}" + ("" if threshold is None else f"   threshold {threshold:.4g}")


def beside_heat_maps(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Images as the model is shown them, uint8 (N, S, S, 3), each beside its heat map: uint8 (N, S, 2 S, 3)."""
    maps = replace(predictor, view=WHOLE).maps(images).maps
    limits, pairs = map_limits(maps), zip(images, maps, strict=True)
    return np.stack([np.hstack([image, blend_heat(image, anomaly_map, limits)]) for image, anomaly_map in pairs])


def colour_limits(detector: Detector, records: Sequence[Record]) -> tuple[float, float]:
    """Ends of the colour scale of all heat maps: by the thresholds or, without, by the first batch."""
    if detector.thresholds:
        return detector.thresholds.colour_limits
    return map_limits(np.stack([record.detection.model_map for record in records if record.detection]))
