"""The report's page: a results table, and for each category a section with charts and a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from datasets.base import Sample
from datasets.names import printable
from utils.data.image_store import Stack
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.detection.thresholds import Thresholds
from utils.drawing.charts import score_histogram, score_range
from utils.drawing.heat_maps import color_table, map_limits
from utils.drawing.pages import jpeg_uri, open_templates, png_uri
from utils.metrics.tables import COLUMNS, Rows, Statistic, headings_of, show, summarise
from utils.report.curves import metric_curves, training_curves
from utils.report.stage1 import Stage1Picture, stage1_images
from utils.report.verdicts import count_outcomes, explain_thresholds, own_verdicts

JPEG_QUALITY = 85
LEVELS = 255  # of a stored map
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
    thresholds: Thresholds | None = None  # the run's own


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
    headings = headings_of(categories.values())
    return render(
        "report.html", title=title, facts=facts, categories=categories, means=means, headings=headings, gains=gains,
        show=show, sections=sections, commands=commands, colors=color_table().ravel().tolist(),
    )


def build_section(category: CategoryReport, is_open: bool = False) -> Markup:
    """Build a category's section: threshold, gallery, scores, curves, training, Stage I."""
    test_set, prediction, thresholds = category.test_set, category.prediction, category.thresholds
    good, anomalous = (prediction.scores[test_set.labels == label] for label in (0, 1))
    marks = (thresholds.image_threshold, thresholds.look_threshold) if thresholds else (None, None)
    low, high = score_range(prediction.scores, *marks)
    metrics = test_set.evaluate(prediction)
    known = [f"{name} {100 * metrics[metric]:.2f}" for metric, name in COLUMNS.items() if metric in metrics]
    histogram = score_histogram(good, anomalous, *marks)
    charts = histogram, *metric_curves(test_set, prediction), *training_curves(category.records)
    stage1 = [
        dict(zip(STAGE1_CAPTIONS, (jpeg_uri(image, JPEG_QUALITY) for image in stage1_images(picture)), strict=True))
        for picture in category.stage1
    ]
    return render(
        "section.html",
        name=category.name,
        is_open=is_open,
        summary=" · ".join([f"{len(good)} good, {len(anomalous)} anomalous", *known]),
        low=low,
        high=high,
        start=thresholds.image_threshold if thresholds else best_threshold(test_set.labels, prediction.scores),
        thresholds=thresholds,
        outcomes=thresholds and count_outcomes(thresholds, test_set.labels, prediction.scores),
        explanation=thresholds and explain_thresholds(thresholds),
        charts=charts,
        stage1=stage1,
        ramp_colors=", ".join(f"rgb({r} {g} {b})" for r, g, b in color_table()[::17]),
        count=len(category.samples),
        gallery=gallery_data(category),
    )


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The image score at which the slider starts: flagging from there on gives the highest F1; moved half way to the
    next lower score. Chosen with the test labels, so it is no setting for a production line."""
    values = np.unique(scores)
    flagged = scores[None] >= values[:, None]  # (thresholds, N)
    hits = (flagged & (labels == 1)).sum(axis=1)
    best = int(np.argmax(2 * hits / (flagged.sum(axis=1) + (labels == 1).sum())))
    return float(values[best] if best == 0 else (values[best] + values[best - 1]) / 2)


def gallery_data(category: CategoryReport) -> dict[str, Any]:
    """Gather for report.js the scores and labels of all images, what the run's thresholds make of them ("own", None
    without), and the pictures of the worst.

    Maps are stored in 255 steps of low..high, their smallest and largest value; colours run from cold to hot.
    """
    maps, scores = category.prediction.maps, category.prediction.scores
    labels, masks = category.test_set.labels, category.test_set.masks
    low, high = float(maps.min()), float(maps.max())
    cold, hot = map_limits(maps)
    images = [
        {
            "name": printable(category.samples[index].name),
            "label": int(labels[index]),
            "score": float(scores[index]),
            "place": index,
            "image": jpeg_uri(category.pictures[index].numpy(), JPEG_QUALITY),
            "map": png_uri(quantise(maps[index], low, high)),
            "mask": png_uri(masks[index] * 255) if masks is not None and labels[index] else None,
        }
        for index in worst_images(labels, scores, category.most_images)
    ]
    return {
        "low": low, "high": high, "cold": cold, "hot": hot,
        "scores": scores.astype(float).tolist(), "labels": labels.astype(int).tolist(), "images": images,
        "own": category.thresholds and own_verdicts(category.thresholds, scores),
    }


def worst_images(labels: np.ndarray, scores: np.ndarray, most: int) -> list[int]:
    """Indices of at most `most` images: half of them good ones from the highest score down, half anomalous ones from
    the lowest score up; where one kind has fewer, more of the other."""
    good = sorted(np.flatnonzero(labels == 0).tolist(), key=lambda index: -scores[index])
    anomalous = sorted(np.flatnonzero(labels == 1).tolist(), key=lambda index: scores[index])
    num_good = min(len(good), max(most // 2, most - len(anomalous)))
    return good[:num_good] + anomalous[: most - num_good]


def quantise(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map (H, W) as uint8 steps of low..high, rounded down: step q starts at low + q (high - low) / 255."""
    if high <= low:
        return np.zeros(anomaly_map.shape, np.uint8)
    return np.clip((anomaly_map - low) / (high - low) * LEVELS, 0, LEVELS).astype(np.uint8)
