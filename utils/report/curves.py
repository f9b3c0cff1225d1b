"""The curves of a category: ROC and PRO, and the course of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from markupsafe import Markup

from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.drawing.charts import Axes, Series, line_chart
from utils.metrics import FPR_LIMIT, UndefinedMetric, image_roc_curve, pixel_curves
from utils.metrics.tables import COLUMNS

STYLES = ("good", "anomalous", "third", "fourth")
MOST_POINTS = 30  # that are marked on a line
TRAINING_CHARTS = (  # stage, caption, names of what is logged, range of y where it is fixed
    (1, "Stage I: losses", {"loss": "loss", "focal": "gate (focal)", "amplify": "amplification"}, None),
    (1, "Stage I: does the gate find the synthetic anomalies?",
     {"gate_precision": "precision of the gate", "gate_recall": "recall of the gate"}, (0, 1)),
    (2, "Stage II: loss", {"loss": "loss"}, None),
    (2, "Test metrics over Stage II (they choose nothing)", COLUMNS, None),
)


def metric_curves(test_set: TestSet, prediction: Prediction) -> list[Markup]:
    """Charts: ROC over images and pixels, PRO. What cannot be computed is left out."""
    charts, lines, pixel = [], [], {}
    with suppress(UndefinedMetric):
        lines.append(Series("images", *image_roc_curve(test_set.labels, prediction.scores), "good"))
    if test_set.masks is not None:
        with suppress(UndefinedMetric):
            pixel = pixel_curves(test_set.masks, prediction.maps)
            lines.append(Series("pixels", *pixel["roc"], "anomalous"))
    if lines:
        axes = Axes((0, 1), (0, 1), "false-positive rate", "true-positive rate")
        charts.append(line_chart("ROC", "ROC curves over images and pixels.", axes, lines))
    if pixel:
        axes = Axes((0, 1), (0, 1), "false-positive rate", "mean overlap of regions")
        lines = [Series(f"mean overlap; PRO counts the shaded part, up to {FPR_LIMIT}", *pixel["pro"], "anomalous")]
        charts.append(line_chart("PRO", "PRO curve.", axes, lines, shaded=(0, FPR_LIMIT)))
    return charts


def training_curves(records: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Charts: losses of both stages, the gate's precision and recall, test metrics where logged."""
    charts = []
    for stage, caption, names, y_range in TRAINING_CHARTS:
        rows, lines = [record for record in records if record["stage"] == stage], []
        for (key, name), style in zip(names.items(), STYLES, strict=False):
            points = [(record["epoch"], record[key]) for record in rows if key in record]
            if points:
                lines.append(Series(name, *zip(*points, strict=True), style, points=len(points) <= MOST_POINTS))
        if lines:
            epochs = max(line.x[-1] for line in lines)
            axes = Axes((0, epochs), y_range or _y_range(lines), "epoch", "", whole_x=True)
            charts.append(line_chart(caption, f"{caption}, epoch by epoch.", axes, lines))
    return charts


def _y_range(lines: Sequence[Series]) -> tuple[float, float]:
    values = [value for line in lines for value in line.y]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * max(1.0, abs(high))
    return (0.0 if 0 <= low < 0.4 * high else low - margin), high + margin
