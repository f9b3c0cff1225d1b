"""Predictions of many image files: read in threads while the model computes, and written as they come, in memory that
does not grow with their number, but for their names.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.base import DataError
from datasets.names import csv_line, printable
from datasets.problems import MOST_SHOWN, count, warning
from utils.data.finding import ImageFiles
from utils.detection.detector import Detection, Detector, ModelInput, Remarks
from utils.detection.thresholds import ANOMALOUS, LOOK
from utils.drawing.heat_maps import map_limits, save_heat_map
from utils.system.errors import PredictionError
from utils.system.files import in_parallel, read_ahead

COLUMNS = ("path", "score", "p_value", "anomalous", "verdict", "regions", "error")
READ_AHEAD = 2  # batches
Write = Callable[["Record"], None]
Writer = AbstractContextManager[Write]


@dataclass(frozen=True)
class Record:
    """A file and its detection, or why it could not be read; with both, why it has no heat map."""

    path: Path
    detection: Detection | None
    error: str | None = None
    remarks: Remarks = ()  # on what may be wrong with a file that was scored

    def to_dict(self) -> dict[str, object]:
        """Plain values by COLUMNS; None for what is not known."""
        values = dict.fromkeys(COLUMNS) | {"path": printable(self.path), "error": self.error and printable(self.error)}
        if one := self.detection:
            values |= {"score": one.score, "p_value": one.p_value, "anomalous": one.is_anomalous,
                       "verdict": one.verdict, "regions": [asdict(region) for region in one.regions]}
        return values

    def line(self) -> str:
        """The record in a line for a person."""
        if self.detection is None:
            return f"error      {printable(self.error)}"
        verdict = self.detection.verdict or "-"
        p_value = "" if self.detection.p_value is None else f"  p {self.detection.p_value:.4f}"
        return f"{verdict:<9}  {self.detection.score:.6f}{p_value}  {printable(self.path)}"

    def csv_row(self) -> str:
        """The values of COLUMNS as a line of a CSV file; regions are JSON."""
        values = self.to_dict()
        regions = None if values["regions"] is None else json.dumps(values["regions"])
        return csv_line((values | {"regions": regions}).values())


class Notes:
    """Remarks on files that are used, by kind: their number, and the first of them."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, path: Path, remarks: Remarks) -> None:
        for kind, details in remarks:
            self.counts[kind] += 1
            self.first.setdefault(kind, str(warning(kind, path, details=details)))

    def print(self) -> None:
        """A line for each kind, on stderr."""
        for kind, line in self.first.items():
            print(f"warning, {count(self.counts[kind], 'time')}: {line}", file=sys.stderr)


@dataclass
class Summary:
    """Numbers of images, the first errors, and remarks."""

    scored: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)  # without a threshold there are none
    failed: int = 0
    without_map: int = 0
    seconds: float = 0.0
    first_errors: list[str] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)

    def add(self, record: Record) -> None:
        if record.error is not None and len(self.first_errors) < MOST_SHOWN:
            self.first_errors.append(printable(record.error))
        if record.detection is None:
            self.failed += 1
            return
        self.without_map += record.error is not None
        self.scored += 1
        self.notes.add(record.path, record.remarks)
        if record.detection.verdict:
            self.verdicts[record.detection.verdict] += 1

    @property
    def errors(self) -> list[str]:
        more = self.failed + self.without_map - len(self.first_errors)
        return self.first_errors + ([f"... and {more} more"] if more else [])

    def text(self) -> str:
        parts = [f"{count(self.scored, 'image')} scored"]
        if self.verdicts:
            parts.append(f"{self.verdicts[ANOMALOUS]} anomalous")
        if self.verdicts[LOOK]:
            parts.append(f"{self.verdicts[LOOK]} to look at")
        if self.failed:
            parts.append(f"{self.failed} could not be used")
        if self.without_map:
            parts.append(f"{count(self.without_map, 'heat map')} could not be written")
        return f"{', '.join(parts)}; {self.scored / self.seconds:.1f} images/s"


def read_batches(
    detector: Detector, paths: Sequence[Path], workers: int
) -> Iterator[list[tuple[Path, ModelInput | DataError]]]:
    """Files in batches, each as the model is shown it, or with the reason why it cannot be read."""

    def read(path: Path) -> tuple[Path, ModelInput | DataError]:
        try:
            return path, detector.prepare(path)
        except DataError as error:
            return path, error

    contents = read_ahead(read, paths, workers, READ_AHEAD * detector.batch_size)
    while batch := list(islice(contents, detector.batch_size)):
        yield batch


def predict_batches(detector: Detector, paths: Sequence[Path], workers: int) -> Iterator[list[Record]]:
    """The records of files, a batch at a time."""
    for batch in read_batches(detector, paths, workers):
        inputs = [content for _, content in batch if isinstance(content, ModelInput)]
        detections = iter(detector.detect(inputs) if inputs else ())
        records = []
        for path, content in batch:
            if isinstance(content, DataError):
                records.append(Record(path, None, str(content)))
            elif isinstance(detection := next(detections), PredictionError):
                records.append(Record(path, None, f"no score for {printable(path)}: {detection}"))
            else:
                records.append(Record(path, detection, remarks=content.remarks))
        yield records


def predict_files(
    detector: Detector, files: ImageFiles, writer: Writer, maps: Mapping[Path, Path], workers: int
) -> Summary:
    """Predict every file, and write records as they come, heat maps to where `maps` says. Folders that could not be
    looked into come last, as errors."""
    summary, started, limits, paths = Summary(), time.perf_counter(), None, files.paths
    with writer as write, tqdm(total=len(paths), desc="predicting", unit="image", disable=None) as bar:
        for records in predict_batches(detector, paths, workers):
            if maps and any(record.detection for record in records):
                limits = limits or colour_limits(detector, records)
                records = save_maps(detector, records, maps, limits, workers)
            for record in records:
                write(record)
                summary.add(record)
            bar.update(len(records))
        for path, reason in files.unread.items():
            record = Record(path, None, reason)
            write(record)
            summary.add(record)
    summary.seconds = time.perf_counter() - started
    return summary


def colour_limits(detector: Detector, records: Sequence[Record]) -> tuple[float, float]:
    """Ends of the colour scale of all heat maps: by the thresholds or, without, by the first batch."""
    if detector.thresholds:
        return detector.thresholds.colour_limits
    return map_limits(np.stack([record.detection.model_map for record in records if record.detection]))


def save_maps(
    detector: Detector, records: Sequence[Record], maps: Mapping[Path, Path], limits: tuple[float, float], workers: int
) -> list[Record]:
    """Write a batch's heat maps, the images read again, which is cheaper than to keep them. Returns the records, those
    whose map could not be written with the error."""

    def save(record: Record) -> Record:
        if not record.detection:
            return record
        anomaly_map = record.detection.anomaly_map
        threshold = detector.region_threshold(record.detection.verdict)
        outlined = None if threshold is None else anomaly_map > threshold
        try:
            photograph = detector.view.load(record.path)
            save_heat_map(maps[record.path], photograph, anomaly_map, outlined, limits)
        except (OSError, DataError) as error:
            return replace(record, error=f"no heat map of {printable(record.path)}: {error}")
        return record

    return list(in_parallel(save, records, workers))
