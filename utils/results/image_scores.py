"""The score of every test image: scores.csv in a run folder, beside the metrics that are made of them.

    rows = image_scores("bottle", samples, root, scores, read_thresholds(run, "bottle"))
    write_scores(run / SCORES, rows)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.base import Sample
from datasets.names import csv_line, printable
from datasets.plain_json import read_text
from utils.detection.thresholds import Thresholds
from utils.system.files import write_text

SCORES = "scores.csv"


class ImageScore(NamedTuple):
    """A line of scores.csv; without thresholds there is neither a p-value nor a verdict."""

    path: str  # below the data set's root, with forward slashes
    category: str
    defect: str
    label: int  # 1 = anomalous
    score: float
    p_value: float | None
    anomalous: bool | None


def image_scores(
    category: str, samples: Sequence[Sample], root: Path, scores: np.ndarray, thresholds: Thresholds | None
) -> list[ImageScore]:
    """The lines of a category's test images, whose scores (N,) are in their order."""
    rows = []
    for sample, score in zip(samples, scores.tolist(), strict=True):
        path = printable(sample.image_path.relative_to(root).as_posix())
        p_value = thresholds and thresholds.p_value(score)
        anomalous = None if thresholds is None else score > thresholds.image_threshold
        rows.append(
            ImageScore(path, printable(category), printable(sample.defect), sample.label, score, p_value, anomalous)
        )
    return rows


def write_scores(path: Path, rows: Iterable[ImageScore]) -> None:
    """Write scores in full precision, in one piece; OSError if the file cannot be written."""
    write_text(path, "".join(map(csv_line, [ImageScore._fields, *rows])))


def merge_scores(paths: Sequence[Path], target: Path) -> None:
    """The lines of several such files, of which any may be missing, in one; nothing where all are."""
    texts = [read_text(path) for path in paths if path.is_file()]
    if texts:
        header = texts[0].partition("\n")[0] + "\n"
        write_text(target, header + "".join(text.partition("\n")[2] for text in texts))
