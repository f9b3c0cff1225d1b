"""The report's page: a results table, and a section for each category, from templates, SVG and data URIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from datasets.base import Sample
from utils.data.image_store import Stack
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.drawing.charts import score_histogram, score_range
from utils.drawing.data_uris import jpeg_uri
from utils.drawing.templates import open_templates
from utils.metrics.tables import COLUMNS, HEADINGS, Rows, Statistic, show, summarise
from utils.report.curves import metric_curves, training_curves
from utils.report.gallery import JPEG_QUALITY, color_table, gallery_data
from utils.report.stage1 import Stage1Picture, stage1_images

STAGE1_CAPTIONS = (
    "synthetic anomaly", "gate, level 1", "gate, level 2", "gate, level 3", "similarity before", "similarity after",
)


def anchor_of(category: str) -> str:
    """An id for a category: letters and digits stay, the rest becomes its code."""
    return "category-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in category)


render = open_templates(Path(__file__).parent / "templates", anchor=anchor_of)


@dataclass(frozen=True)
class CategoryReport:
    """All that a category's section shows."""

    name: str
    samples: Sequence[Sample]
    test_set: TestSet
    pictures: Stack  # of its images, whole
    prediction: Prediction
    records: Sequence[Mapping[str, Any]]  # of metrics.jsonl: an epoch each
    stage1: Sequence[Stage1Picture]
    most_images: int  # in the gallery


def build_page(
    title: str, facts: Mapping[str, str], runs: Sequence[Rows], gains: Mapping[str, Statistic],
    sections: Sequence[Markup], commands: Sequence[str],
) -> str:
    """Build the whole page.

    facts: what the run is, by name; runs: results, one for each seed; gains: by how much the best test epoch is above
    the result in I-AUROC, for the categories for which it is known, and of their mean under ""; sections: of
    `build_section`; commands: how to repeat it all.
    """
    categories, means = summarise(runs)
    return render(
        "report.html", title=title, facts=facts, categories=categories, means=means, headings=HEADINGS, gains=gains,
        show=show, sections=sections, commands=commands, colors=color_table().ravel().tolist(),
    )


def build_section(category: CategoryReport) -> Markup:
    """Build a category's section: threshold, scores, curves, training, Stage I, gallery."""
    test_set, prediction = category.test_set, category.prediction
    good, anomalous = (prediction.scores[test_set.labels == label] for label in (0, 1))
    low, high = score_range(prediction.scores)
    metrics = test_set.evaluate(prediction)
    known = [f"{name} {100 * metrics[metric]:.2f}" for metric, name in COLUMNS.items() if metric in metrics]
    charts = score_histogram(good, anomalous), *metric_curves(test_set, prediction), *training_curves(category.records)
    stage1 = [
        dict(zip(STAGE1_CAPTIONS, (jpeg_uri(image, JPEG_QUALITY) for image in stage1_images(picture)), strict=True))
        for picture in category.stage1
    ]
    return render(
        "section.html",
        name=category.name,
        summary=" · ".join([f"{len(good)} good, {len(anomalous)} anomalous", *known]),
        low=low,
        high=high,
        start=best_threshold(test_set.labels, prediction.scores),
        charts=charts,
        stage1=stage1,
        ramp_colors=", ".join(f"rgb({r} {g} {b})" for r, g, b in color_table()[::17]),
        count=len(category.samples),
        gallery=gallery_data(category.samples, category.pictures, test_set, prediction, category.most_images),
    )


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The image score at which the slider starts: flagging from there on gives the highest F1; moved half way to the
    next lower score. Chosen with the test labels, so it is no setting for a production line."""
    values = np.unique(scores)
    flagged = scores[None] >= values[:, None]  # (thresholds, N)
    hits = (flagged & (labels == 1)).sum(axis=1)
    best = int(np.argmax(2 * hits / (flagged.sum(axis=1) + (labels == 1).sum())))
    return float(values[best] if best == 0 else (values[best] + values[best - 1]) / 2)
