"""The report's page: results table, and a section for each category, put together from HTML, SVG and data URIs.

Everything that comes from a file or a run (names of categories, images, settings) passes through `html_text` or JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from datasets.base import Sample
from datasets.names import html_text, printable
from utils.data.image_store import Stack
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.drawing.charts import Axes, Series, line_chart, score_histogram, score_range
from utils.drawing.heat_maps import map_limits
from utils.metrics import FPR_LIMIT, UndefinedMetric, image_roc_curve, pixel_curves
from utils.metrics.tables import COLUMNS, HEADINGS, Row, Rows, Statistic, show, summarise
from utils.report.stage1 import Stage1Picture, color_table, grey_png, jpeg, quantise, stage1_images

HERE = Path(__file__).parent
STAGE1_CAPTIONS = (
    "synthetic anomaly", "gate, level 1", "gate, level 2", "gate, level 3", "similarity before", "similarity after",
)


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
    sections: Sequence[str], commands: Sequence[str],
) -> str:
    """The whole page.

    facts: what the run is, by name; runs: results, one for each seed; gains: by how much the best test epoch is above
    the result in I-AUROC, for the categories for which it is known, and of their mean under ""; sections: of
    `build_section`; commands: how to repeat it all.
    """
    return Template((HERE / "report.html").read_text(encoding="utf-8")).substitute(
        title=html_text(title),
        facts="".join(f"<dt>{html_text(name)}</dt><dd>{html_text(text)}</dd>" for name, text in facts.items()),
        table=results_table(runs, gains),
        sections="".join(sections),
        commands="\n".join(map(html_text, commands)),
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        script=(HERE / "report.js").read_text(encoding="utf-8"),
        colors=to_json(color_table()),
    )


def results_table(runs: Sequence[Rows], gains: Mapping[str, Statistic]) -> str:
    """Every metric of every category, and the gain of the published protocol as a column of its own."""
    categories, means = summarise(runs)
    heads = ["Category", *HEADINGS.values(), *(["best epoch on test − result, I-AUROC"] if gains else [])]
    head = "".join(
        f'<th scope="col" aria-sort="none"{_aside(i, heads, gains)}><button type="button">{name}</button></th>'
        for i, name in enumerate(map(html_text, heads))
    )
    links = {name: f'<a href="#{_anchor(name)}">{html_text(name)}</a>' for name in categories}
    body = "".join(_table_row(links[name], name, row, gains) for name, row in categories.items())
    foot = _table_row("Mean", "", means, gains)
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>'


def build_section(category: CategoryReport) -> str:
    """A category: threshold, scores, curves, training, Stage I, gallery."""
    labels, scores = category.test_set.labels, category.prediction.scores
    good, anomalous = scores[labels == 0], scores[labels == 1]
    low, high = score_range(scores)
    metrics, data = category.test_set.evaluate(category.prediction), gallery_data(category)
    known = (f"{COLUMNS[metric]} {100 * metrics[metric]:.2f}" for metric in COLUMNS if metric in metrics)
    counts = f"{len(good)} good, {len(anomalous)} anomalous"
    summary = f"{html_text(category.name)} <span>{counts} · {' · '.join(known)}</span>"
    return Template((HERE / "section.html").read_text(encoding="utf-8")).substitute(
        anchor=_anchor(category.name),
        summary=summary,
        low=low,
        high=high,
        step=(high - low) / 500,
        start=best_threshold(labels, scores),
        histogram=_with_caption("Image scores", score_histogram(good, anomalous)),
        curves="".join(_with_caption(*chart) for chart in [*_metric_curves(category), *_training_curves(category)]),
        stage1=_stage1(category.stage1),
        ramp=_ramp(),
        cold=f"{data['cold']:.3f}",
        hot=f"{data['hot']:.3f}",
        shown=_images_shown(category),
        data=to_json(data),
    )


def gallery_data(category: CategoryReport) -> dict[str, Any]:
    """What report.js needs of a category: scores and labels of all images, and the pictures of those in the gallery.

    Maps are stored in 255 steps of low..high, their smallest and largest value; colours run from cold to hot.
    """
    maps, scores, labels = category.prediction.maps, category.prediction.scores, category.test_set.labels
    low, high = float(maps.min()), float(maps.max())
    cold, hot = map_limits(maps)
    masks = category.test_set.masks
    images = [
        {
            "name": printable(category.samples[index].name),
            "label": int(labels[index]),
            "score": float(scores[index]),
            "image": jpeg(category.pictures[index].numpy()),
            "map": grey_png(quantise(maps[index], low, high)),
            "mask": grey_png(masks[index] * 255) if masks is not None and labels[index] else None,
        }
        for index in worst_images(labels, scores, category.most_images)
    ]
    return {
        "low": low, "high": high, "cold": cold, "hot": hot,
        "scores": [float(score) for score in scores], "labels": [int(label) for label in labels], "images": images,
    }


def worst_images(labels: np.ndarray, scores: np.ndarray, most: int) -> list[int]:
    """Indices of at most `most` images: half of them good ones from the highest score down, half anomalous ones from
    the lowest score up; where one kind has fewer, more of the other."""
    good = sorted(np.flatnonzero(labels == 0).tolist(), key=lambda index: -scores[index])
    anomalous = sorted(np.flatnonzero(labels == 1).tolist(), key=lambda index: scores[index])
    num_good = min(len(good), max(most // 2, most - len(anomalous)))
    return good[:num_good] + anomalous[: most - num_good]


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Where the slider starts: the image score from which on flagging gives the highest F1, moved half way to the next
    lower score. Chosen with the test labels, so it is no setting for a production line."""
    values = np.unique(scores)
    flagged = scores[None] >= values[:, None]  # (thresholds, N)
    hits = (flagged & (labels == 1)).sum(axis=1)
    best = int(np.argmax(2 * hits / (flagged.sum(axis=1) + (labels == 1).sum())))
    return float(values[best] if best == 0 else (values[best] + values[best - 1]) / 2)


def to_json(content: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _metric_curves(category: CategoryReport) -> list[tuple[str, str]]:
    """Captions and charts: ROC over images and pixels, PRO. What cannot be computed is left out."""
    test_set, prediction = category.test_set, category.prediction
    charts, lines, pixel = [], [], {}
    with suppress(UndefinedMetric):
        lines.append(Series("images", *image_roc_curve(test_set.labels, prediction.scores), "good"))
    if test_set.masks is not None:
        with suppress(UndefinedMetric):
            pixel = pixel_curves(test_set.masks, prediction.maps)
            lines.append(Series("pixels", *pixel["roc"], "anomalous"))
    if lines:
        axes = Axes((0, 1), (0, 1), "false-positive rate", "true-positive rate")
        charts.append(("ROC", line_chart("ROC curves over images and pixels.", axes, lines)))
    if pixel:
        axes = Axes((0, 1), (0, 1), "false-positive rate", "mean overlap of regions")
        lines = [Series(f"mean overlap; PRO counts the shaded part, up to {FPR_LIMIT}", *pixel["pro"], "anomalous")]
        charts.append(("PRO", line_chart("PRO curve.", axes, lines, shaded=(0, FPR_LIMIT))))
    return charts


def _training_curves(category: CategoryReport) -> list[tuple[str, str]]:
    """Captions and charts: losses of both stages, the gate's precision and recall, test metrics where logged."""
    styles = ("good", "anomalous", "third", "fourth")
    stages = {stage: [record for record in category.records if record["stage"] == stage] for stage in (1, 2)}
    gate = {"gate_precision": "precision of the gate", "gate_recall": "recall of the gate"}
    plans = [
        ("Stage I: losses", stages[1], {"loss": "loss", "focal": "gate (focal)", "amplify": "amplification"}, None),
        ("Stage I: does the gate find the synthetic anomalies?", stages[1], gate, (0, 1)),
        ("Stage II: loss", stages[2], {"loss": "loss"}, None),
        ("Test metrics over Stage II (they choose nothing)", stages[2], COLUMNS, None),
    ]
    charts = []
    for caption, records, names, y_range in plans:
        lines = []
        for (key, name), style in zip(names.items(), styles, strict=False):
            points = [(record["epoch"], record[key]) for record in records if key in record]
            if points:
                lines.append(Series(name, *zip(*points, strict=True), style, points=len(points) <= 30))
        if not lines:
            continue
        axes = Axes((0, max(line.x[-1] for line in lines)), y_range or _y_range(lines), "epoch", "", whole_x=True)
        charts.append((caption, line_chart(f"{caption}, epoch by epoch.", axes, lines)))
    return charts


def _y_range(lines: Sequence[Series]) -> tuple[float, float]:
    values = [value for line in lines for value in line.y]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * max(1.0, abs(high))
    return (0.0 if 0 <= low < 0.4 * high else low - margin), high + margin


def _with_caption(caption: str, chart: str) -> str:
    return chart.replace("<svg", f"<figcaption>{html_text(caption)}</figcaption><svg", 1)


def _stage1(pictures: Sequence[Stage1Picture]) -> str:
    if not pictures:
        return ""
    rows = []
    for number, picture in enumerate(pictures, start=1):
        figures = []
        for image, caption in zip(stage1_images(picture), STAGE1_CAPTIONS, strict=True):
            shown = f'<img src="{jpeg(image)}" alt="{caption}, example {number}">'
            figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
        rows.append(f'<div class="stage1">{"".join(figures)}</div>')
    return Template((HERE / "stage1.html").read_text(encoding="utf-8")).substitute(rows="".join(rows), ramp=_ramp())


def _ramp() -> str:
    colors = np.array(color_table()).reshape(256, 3)[::17]
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colors)
    return f'<span class="ramp" style="background: linear-gradient(90deg, {stops})"></span>'


def _images_shown(category: CategoryReport) -> str:
    count, most = len(category.samples), category.most_images
    return f"All {count} test images." if count <= most else f"The {most} most telling of {count} test images."


def _table_row(head: str, name: str, row: Row, gains: Mapping[str, Statistic]) -> str:
    """`head` is HTML; `name` the category to sort by and whose gain is shown, "" for the row of means."""
    cells = [_cell(row.get(metric)) for metric in HEADINGS]
    if gains:
        cells.append(_cell(gains.get(name), ' class="aside"'))
    return f'<tr><td data-value="{html_text(name)}">{head}</td>{"".join(cells)}</tr>'


def _cell(figure: Statistic | None, style: str = "") -> str:
    return f'<td{style} data-value="{"" if figure is None else figure.mean}">{show(figure)}</td>'


def _aside(index: int, heads: Sequence[str], gains: Mapping[str, Statistic]) -> str:
    return ' class="aside"' if gains and index == len(heads) - 1 else ""


def _anchor(category: str) -> str:
    """An id for a category: letters and digits stay, the rest becomes its code."""
    return "category-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in category)
