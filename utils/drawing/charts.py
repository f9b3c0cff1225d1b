"""Charts as plain SVG. Colours are CSS classes, so that the page's light and dark scheme decide on them.

Every chart is an image with a text alternative; its data are fractions or counts, drawn to scale in a viewBox.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.names import html_text

WIDTH, HEIGHT = 420, 260  # of a chart, in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42  # margins


@dataclass(frozen=True)
class Series:
    """A line of a chart: x and y of equal length; `style` is the CSS class that colours it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    points: bool = False  # mark each value


@dataclass(frozen=True)
class Axes:
    """Scales of a chart: the ends of both axes, and their labels."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    whole_x: bool = False  # epochs: no tick between them
    whole_y: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the SVG's units."""
        (x0, x1), (y0, y1) = self.x, self.y
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def line_chart(alt: str, axes: Axes, lines: Sequence[Series], shaded: tuple[float, float] | None = None) -> str:
    """Lines over common axes with a legend below; `shaded` marks a range of x."""
    parts = []
    if shaded:
        (left, top), (right, bottom) = axes.at(shaded[0], axes.y[1]), axes.at(shaded[1], axes.y[0])
        parts.append(_rect("shade", left, top, right - left, bottom - top))
    parts.append(_frame(axes))
    for line in lines:
        points = [axes.at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        if line.points:
            parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
    legend = "".join(f'<li><span class="key {line.style}"></span>{html_text(line.name)}</li>' for line in lines)
    return f'<figure class="chart">{_svg(alt, parts)}<ul class="legend">{legend}</ul></figure>'


def score_histogram(good: np.ndarray, anomalous: np.ndarray, bins: int = 40) -> str:
    """Numbers of good images upwards and of anomalous ones downwards over the image score, and a line for the
    threshold, which the page moves (class "threshold", data-x0 and data-x1 being the ends of the scale)."""
    low, high = score_range(np.concatenate([good, anomalous]))
    edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(scores, edges)[0] for scores in (good, anomalous)]
    most = max(1, *(int(c.max()) for c in counts))
    axes = Axes((low, high), (-most, most), "image score", "images", whole_y=True)
    parts = [_frame(axes, y_format=lambda value: f"{abs(value):g}", zero_line=True)]
    for count, style, sign in zip(counts, ("good", "anomalous"), (1, -1), strict=True):
        for left, right, number in zip(edges[:-1], edges[1:], count, strict=True):
            if number:
                (x0, y0), (x1, y1) = axes.at(left, 0), axes.at(right, sign * int(number))
                parts.append(_rect(f"bar {style}", x0 + 0.5, min(y0, y1), max(0.5, x1 - x0 - 1), abs(y1 - y0)))
    top, bottom = axes.at(low, most)[1], axes.at(low, -most)[1]
    ends = f'data-x0="{LEFT}" data-x1="{WIDTH - RIGHT}"'
    parts.append(f'<line class="threshold" x1="{LEFT}" x2="{LEFT}" y1="{top}" y2="{bottom}" {ends}/>')
    alt = f"Histogram of image scores: {len(good)} good images, {len(anomalous)} anomalous ones."
    legend = '<li><span class="key good"></span>good (upwards)</li>'
    legend += '<li><span class="key anomalous"></span>anomalous (downwards)</li>'
    legend += '<li><span class="key threshold"></span>threshold</li>'
    return f'<figure class="chart">{_svg(alt, parts)}<ul class="legend">{legend}</ul></figure>'


def score_position(reference: np.ndarray, kind: str, score: float | None, threshold: float | None) -> str:
    """The place of an image's score and of the threshold among the scores of other images, which `kind` names: e.g.
    "good images kept aside"."""
    marks = [value for value in (score, threshold) if value is not None]
    low, high = score_range(np.concatenate([reference, marks]))
    counts, edges = np.histogram(reference, bins=min(30, max(5, len(reference) // 4)))
    most = int(counts.max())
    axes = Axes((low, high), (0, most), "image score", "images", whole_y=True)
    parts = [_frame(axes)]
    for left, right, number in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        if number:
            (x0, y0), (x1, y1) = axes.at(left, 0), axes.at(right, number)
            parts.append(_rect("bar good", x0, y1, max(1.5, x1 - x0 - 0.5), y0 - y1))
    top, bottom = axes.at(low, most)[1], axes.at(low, 0)[1]
    legend = [f'<li><span class="key good"></span>{html_text(kind)}</li>']
    alt = [f"Histogram of the image scores of {len(reference)} {kind}."]
    for style, name, value in (("threshold", "threshold", threshold), ("score", "this image", score)):
        if value is not None:
            x = axes.at(value, 0)[0]
            parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            legend.append(f'<li><span class="key {style}"></span>{name}, {value:.4g}</li>')
            alt.append(f"{name.capitalize()}: {value:.4g}.")
    return f'<figure class="chart">{_svg(" ".join(alt), parts)}<ul class="legend">{"".join(legend)}</ul></figure>'


def score_range(scores: np.ndarray) -> tuple[float, float]:
    """The ends of the score axis: a little wider than the scores, so that a threshold can pass all or none."""
    low, high = float(scores.min()), float(scores.max())
    margin = 0.02 * (high - low) or 0.5
    return low - margin, high + margin


def ticks(low: float, high: float, whole: bool = False, most: int = 6) -> list[float]:
    """Round numbers in low..high: at most `most` multiples of 1, 2 or 5 times a power of ten, without fractions if
    `whole`."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 1)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _frame(axes: Axes, y_format=lambda value: f"{value:g}", zero_line: bool = False) -> str:
    """Grid lines, tick labels and axis labels."""
    parts = []
    for value in ticks(*axes.x, axes.whole_x):
        x, y = axes.at(value, axes.y[0])
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 15:.1f}" text-anchor="middle">{_round(value):g}</text>')
    for value in ticks(*axes.y, axes.whole_y):
        x, y = axes.at(axes.x[0], value)
        style = "axis" if zero_line and value == 0 else "grid"
        parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = y_format(_round(value))
        parts.append(f'<text class="tick" x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    for place, text in (
        (f"translate({middle_x} {HEIGHT - 6})", axes.x_label),
        (f"translate(13 {middle_y}) rotate(-90)", axes.y_label),
    ):
        parts.append(f'<text class="label" transform="{place}" text-anchor="middle">{html_text(text)}</text>')
    return "".join(parts)


def _round(value: float) -> float:
    return round(value, 10) + 0.0  # no -0, no 0.30000000000000004


def _rect(style: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(alt: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html_text(alt)}">{"".join(parts)}</svg>'
