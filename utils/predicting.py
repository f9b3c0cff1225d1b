"""Predictions of many image files: read in threads while the model computes, and written as they come.

    found = find_images(["photos/"])                  # of utils.finding
    summary = predict_files(detector, found, writer_for(Path("scores.csv")), maps=None, workers=2)

Memory does not grow with the number of images, but for their names.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count
from utils.cli import UsageError
from utils.detector import Detection, Detector, Shown
from utils.finding import Found
from utils.misc import in_parallel, read_ahead
from utils.predictions import PredictionError
from utils.visualize import map_limits, save_heat_map

COLUMNS = ("path", "score", "p_value", "anomalous", "regions", "error")
READ_AHEAD = 2  # batches
Write = Callable[["Record"], None]
Writer = AbstractContextManager[Write]


@dataclass(frozen=True)
class Record:
    """A file and what was found in it, or why it could not be read."""

    path: Path
    found: Detection | None
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values by COLUMNS; None for what is not known."""
        if self.found is None:
            return dict.fromkeys(COLUMNS) | {"path": printable(self.path), "error": self.error}
        regions = [asdict(region) for region in self.found.regions]
        figures = (printable(self.path), self.found.score, self.found.p_value, self.found.is_anomalous, regions, None)
        return dict(zip(COLUMNS, figures, strict=True))

    def line(self) -> str:
        """For a person."""
        if self.found is None:
            return f"error      {self.error}"
        verdict = {True: "anomalous", False: "good", None: "-"}[self.found.is_anomalous]
        p_value = "" if self.found.p_value is None else f"  p {self.found.p_value:.4f}"
        return f"{verdict:<9}  {self.found.score:.6f}{p_value}  {printable(self.path)}"


    def csv_row(self) -> str:
        """The values of COLUMNS as a line of a CSV file; regions are JSON."""
        values = self.to_dict()
        regions = None if values["regions"] is None else json.dumps(values["regions"])
        return csv_line((values | {"regions": regions}).values())


@dataclass
class Summary:
    """How many images were scored, called anomalous, and could not be read; the first errors."""

    scored: int = 0
    anomalous: int | None = None  # without a threshold nothing is
    failed: int = 0
    seconds: float = 0.0
    first_errors: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        if record.found is None:
            self.failed += 1
            if self.failed <= MOST_SHOWN:
                self.first_errors.append(record.error)
            return
        self.scored += 1
        if record.found.is_anomalous is not None:
            self.anomalous = (self.anomalous or 0) + record.found.is_anomalous

    @property
    def errors(self) -> list[str]:
        more = self.failed - len(self.first_errors)
        return [*self.first_errors, *([f"... and {more} more"] if more else [])]

    def text(self) -> str:
        parts = [f"{count(self.scored, 'image')} scored"]
        if self.anomalous is not None:
            parts.append(f"{self.anomalous} anomalous")
        if self.failed:
            parts.append(f"{self.failed} could not be used")
        return f"{', '.join(parts)}; {self.scored / self.seconds:.1f} images/s"


def read_batches(
    detector: Detector, paths: Sequence[Path], workers: int
) -> Iterator[list[tuple[Path, Shown | DataError]]]:
    """Files in batches, each with what the model is shown of it, or why it cannot be read."""

    def read(path: Path) -> tuple[Path, Shown | DataError]:
        try:
            return path, detector.show(path)
        except DataError as error:
            return path, error

    batch = []
    for one in read_ahead(read, paths, workers, READ_AHEAD * detector.batch_size):
        batch.append(one)
        if len(batch) == detector.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def predict_batches(detector: Detector, paths: Sequence[Path], workers: int) -> Iterator[list[Record]]:
    """The records of files, a batch at a time."""
    for batch in read_batches(detector, paths, workers):
        shown = [content for _, content in batch if isinstance(content, Shown)]
        found = iter(detector.detect(shown) if shown else ())
        results = [(path, next(found) if isinstance(content, Shown) else content) for path, content in batch]
        yield [
            Record(path, result) if isinstance(result, Detection) else Record(path, None, _why(path, result))
            for path, result in results
        ]


def _why(path: Path, error: DataError | PredictionError) -> str:
    return str(error) if isinstance(error, DataError) else f"no score for {printable(path)}: {error}"


def predict_files(detector: Detector, files: Found, writer: Writer, maps: Path | None, workers: int) -> Summary:
    """Predict every file, and write what is found as it comes; heat maps to `maps`. What could not be looked into comes
    last, as errors."""
    summary, started, limits, paths = Summary(), time.perf_counter(), None, files.paths
    names = map_names(paths, maps) if maps else {}
    with writer as write, tqdm(total=len(paths), desc="predicting", unit="image", disable=None) as bar:
        for records in predict_batches(detector, paths, workers):
            if maps and any(record.found for record in records):
                limits = limits or colour_limits(detector, records)
                save_maps(detector, records, names, limits, workers)
            for record in records:
                write(record)
                summary.add(record)
            bar.update(len(records))
        for record in [Record(path, None, reason) for path, reason in files.unread.items()]:
            write(record)
            summary.add(record)
    summary.seconds = time.perf_counter() - started
    return summary


def colour_limits(detector: Detector, records: Sequence[Record]) -> tuple[float, float]:
    """Ends of the colour scale of all heat maps: by the thresholds or, without, by the first batch."""
    if detector.thresholds:
        return detector.thresholds.colour_limits
    return map_limits(np.stack([record.found.model_map for record in records if record.found]))


def map_names(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each image's heat map is written: its path below the folder common to all, with its suffix, then .png."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return {
        path: folder / f"{os.path.relpath(full, common)}.png" for path, full in zip(paths, absolute, strict=True)
    }


def save_maps(
    detector: Detector, records: Sequence[Record], names: dict[Path, Path], limits: tuple[float, float], workers: int
) -> None:
    """Write a batch's heat maps; the images are read again, which is cheaper than to keep them until now."""

    def save(record: Record) -> None:
        anomaly_map = record.found.anomaly_map
        outlined = anomaly_map > detector.pixel_threshold if record.found.is_anomalous else None
        save_heat_map(names[record.path], detector.view.load(record.path), anomaly_map, outlined, limits)

    for _ in in_parallel(save, [record for record in records if record.found], workers):
        pass


def writer_for(path: Path | None) -> Writer:
    """What writes records: to a .csv or .jsonl file or, without a path, to the screen.

    Raises UsageError for another suffix.
    """
    if path is None:
        return nullcontext(lambda record: tqdm.write(record.line()))
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"--output {path}: predictions are written as .csv or .jsonl")
    return _write_file(path)


@contextmanager
def _write_file(path: Path) -> Iterator[Write]:
    """Whole lines reach the file as they come, so that a run of hours that is stopped leaves what it has found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="", buffering=1) as file:
        if path.suffix == ".csv":
            file.write(csv_line(COLUMNS))

        def write(record: Record) -> None:
            line = record.csv_row() if path.suffix == ".csv" else json.dumps(record.to_dict(), allow_nan=False) + "\n"
            file.write(line)

        yield write


def csv_line(values: Iterable[object]) -> str:
    """Values as a line of a CSV file, quoted where it must be."""
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
