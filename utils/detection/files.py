"""Predictions of many image files: read in threads while the model computes, and written as they come, in memory that
does not grow with their number, but for their names.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count, warning
from utils.data.finding import ImageFiles
from utils.detection.detector import Detector, ModelInput
from utils.detection.pictures import Pictures
from utils.detection.records import Record, Remarks
from utils.detection.thresholds import ANOMALOUS, LOOK
from utils.system.errors import PredictionError
from utils.system.files import read_ahead

READ_AHEAD = 2  # batches
Write = Callable[[Record], None]
Writer = AbstractContextManager[Write]


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
    without_pictures: int = 0
    seconds: float = 0.0
    first_errors: list[str] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)

    def add(self, record: Record) -> None:
        if record.error is not None and len(self.first_errors) < MOST_SHOWN:
            self.first_errors.append(printable(record.error))
        if record.detection is None:
            self.failed += 1
            return
        self.without_pictures += record.error is not None
        self.scored += 1
        self.notes.add(record.path, record.remarks)
        if record.detection.verdict:
            self.verdicts[record.detection.verdict] += 1

    @property
    def errors(self) -> list[str]:
        more = self.failed + self.without_pictures - len(self.first_errors)
        return self.first_errors + ([f"... and {more} more"] if more else [])

    def text(self) -> str:
        parts = [f"{count(self.scored, 'image')} scored"]
        if self.verdicts:
            parts.append(f"{self.verdicts[ANOMALOUS]} anomalous")
        if self.verdicts[LOOK]:
            parts.append(f"{self.verdicts[LOOK]} to look at")
        if self.failed:
            parts.append(f"{self.failed} could not be used")
        if self.without_pictures:
            parts.append(f"pictures of {count(self.without_pictures, 'image')} could not be written")
        return f"{', '.join(parts)}; {self.scored / self.seconds:.1f} images/s"

    def print(self) -> None:
        """The numbers and the remarks, on stderr."""
        print(self.text(), file=sys.stderr)
        self.notes.print()


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


def predict_files(detector: Detector, files: ImageFiles, writer: Writer, pictures: Pictures, workers: int) -> Summary:
    """Predict every file, and write records and pictures as they come. Folders that could not be looked into come last,
    as errors."""
    summary, started, paths = Summary(), time.perf_counter(), files.paths
    with writer as write, tqdm(total=len(paths), desc="predicting", unit="image", disable=None) as bar:
        for records in predict_batches(detector, paths, workers):
            for record in pictures.save(detector, records, workers):
                write(record)
                summary.add(record)
            bar.update(len(records))
        for path, reason in files.unread.items():
            record = Record(path, None, reason)
            write(record)
            summary.add(record)
    summary.seconds = time.perf_counter() - started
    return summary
