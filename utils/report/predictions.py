"""A page of predictions: the images with their heat maps, the highest scores first, without any labels."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count as numbers
from pathlib import Path

import numpy as np

from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN
from datasets.view import enlarge
from utils.detection.detector import Detector
from utils.detection.files import Writer
from utils.detection.pictures import colour_limits
from utils.detection.records import Record
from utils.detection.thresholds import ANOMALOUS, GOOD, LOOK
from utils.drawing.charts import score_position
from utils.drawing.heat_maps import blend_heat, color_table, draw_outline
from utils.drawing.pages import jpeg_uri, open_templates, shrink
from utils.system.files import write_text

MOST_SIDE = 512  # pixels of a picture on the page
JPEG_QUALITY = 85
WORDS = {ANOMALOUS: "✕ anomalous", LOOK: "? look at it", GOOD: "✓ good", None: "no verdict"}
ORDER = (ANOMALOUS, LOOK, GOOD)
render = open_templates(Path(__file__).parent / "templates")


@dataclass
class Gallery:
    """The records with the highest scores among those that came, at most so many, and the numbers of all."""

    most: int
    worst: list[tuple[float, int, Record]] = field(default_factory=list)  # a heap, the lowest score first
    verdicts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=numbers)

    def add(self, record: Record) -> None:
        if record.error is not None:
            self.errors.append(record.error)
        if record.detection is None:
            return
        score = record.detection.score
        self.scores.append(score)
        self.verdicts[record.detection.verdict] += 1
        entry = (score, -next(self.order), record)
        if len(self.worst) < self.most:
            heapq.heappush(self.worst, entry)
        else:
            heapq.heappushpop(self.worst, entry)

    @property
    def records(self) -> list[Record]:
        """The highest score first, equal ones as they came."""
        return [record for _, _, record in sorted(self.worst, key=lambda entry: entry[:2], reverse=True)]


@contextmanager
def with_page(writer: Writer, path: Path, detector: Detector, most: int) -> Iterator:
    """A writer that hands records on, and at its end writes the page of those with the highest scores."""
    gallery = Gallery(most)
    with writer as write:

        def both(record: Record) -> None:
            write(record)
            gallery.add(record)

        yield both
    write_text(path, build_predictions(gallery, detector))


def build_predictions(gallery: Gallery, detector: Detector) -> str:
    """Build the page; the images are read again."""
    records = gallery.records
    limits = colour_limits(detector, records) if records else (0.0, 0.0)
    reference, kind = np.array(gallery.scores), "images scored here"
    if detector.thresholds:
        reference, kind = np.array(detector.thresholds.scores), "good images kept out of training"
    threshold = detector.image_threshold
    return render(
        "predictions.html",
        title=f"Predictions: {printable(detector.category)}",
        thresholds=str(detector.thresholds) if detector.thresholds and detector.threshold is None else "",
        threshold=threshold,
        counts=[(WORDS[verdict], gallery.verdicts[verdict]) for verdict in ORDER if gallery.verdicts[verdict]],
        total=len(gallery.scores),
        cards=[card_of(record, detector, limits) for record in records],
        chart=score_position(reference, kind, records[0].detection.score, threshold) if records else "",
        limits=limits,
        ramp_colors=", ".join(f"rgb({r} {g} {b})" for r, g, b in color_table()[::17]),
        errors=[printable(error) for error in gallery.errors[:MOST_SHOWN]],
        more_errors=max(0, len(gallery.errors) - MOST_SHOWN),
    )


def card_of(record: Record, detector: Detector, limits: tuple[float, float]) -> dict[str, object]:
    """What the page shows of an image: its figures, and pictures or why there are none."""
    detection = record.detection
    card = {"name": printable(record.path), "score": detection.score, "p_value": detection.p_value, "problem": "",
            "verdict": detection.verdict or "", "word": WORDS[detection.verdict], "regions": len(detection.regions)}
    try:
        photograph = shrink(detector.view.load(record.path, detector.most_pixels), MOST_SIDE)
    except DataError as error:
        return card | {"problem": printable(error)}
    anomaly_map = enlarge(detection.model_map, photograph.shape[:2])
    heat = blend_heat(photograph, anomaly_map, limits, detector.heat_weight(anomaly_map.shape))
    threshold = detector.region_threshold(detection.verdict)
    if threshold is not None:
        heat = draw_outline(heat, anomaly_map > threshold)
    return card | {"photograph": jpeg_uri(photograph, JPEG_QUALITY), "heat": jpeg_uri(heat, JPEG_QUALITY)}
