"""Charts as plain SVG with a text alternative. Colours are CSS classes: the page's light or dark scheme decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from utils.drawing.pages import open_templates

WIDTH, HEIGHT = 420, 260  # of a chart, in the SVG's own units
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42  # margins
MOST_TICKS = 6  # of an axis
Rect = tuple[str, float, float, float, float]  # style, x, y, width, height

render = open_templates(Path(__file__).parent / "templates")


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
    mirrored: bool = False  # y counts from 0 upwards and downwards

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the SVG's units."""
        (x0, x1), (y0, y1) = self.x, self.y
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def points(self, line: Series) -> list[tuple[float, float]]:
        return [self.at(x, y) for x, y in zip(line.x, line.y, strict=True)]

    def bars(self, style: str, counts: np.ndarray, edges: np.ndarray, gap: float, least: float) -> list[Rect]:
        """A bar for each bin of a histogram that holds any; gap: between bars; least: width of a bar."""
        bins = zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
        corners = [(self.at(left, 0), self.at(right, count)) for left, right, count in bins if count]
        return [
            (f"bar {style}", x0 + gap / 2, min(y0, y1), max(least, x1 - x0 - gap), abs(y1 - y0))
            for (x0, y0), (x1, y1) in corners
        ]


def line_chart(
    caption: str, alt: str, axes: Axes, lines: Sequence[Series], shaded: tuple[float, float] | None = None
) -> Markup:
    """Lines over common axes with a legend below; `shaded` marks a range of x."""
    shades = []
    if shaded:
        (left, top), (right, bottom) = axes.at(shaded[0], axes.y[1]), axes.at(shaded[1], axes.y[0])
        shades = [("shade", left, top, right - left, bottom - top)]
    return _draw(alt, axes, [(line.style, line.name) for line in lines], caption, lines=lines, shades=shades)


def score_histogram(
    good: np.ndarray, anomalous: np.ndarray, threshold: float | None = None, look: float | None = None, bins: int = 40
) -> Markup:
    """Numbers of good images upwards and of anomalous ones downwards over the image score, and lines for the score
    above which an image is anomalous (class "threshold"), and for that above which it is to be looked at ("look"), if
    there is one. The page moves the first; data-x0 and data-x1 are the ends of the scale."""
    low, high = score_range(np.concatenate([good, anomalous]), threshold, look)
    edges = np.linspace(low, high, bins + 1)
    up, down = (np.histogram(scores, edges)[0] for scores in (good, anomalous))
    most = max(1, int(up.max()), int(down.max()))
    axes = Axes((low, high), (-most, most), "image score", "images", whole_y=True, mirrored=True)
    bars = axes.bars("good", up, edges, 1, 0.5) + axes.bars("anomalous", -down, edges, 1, 0.5)
    legend = [("good", "good (upwards)"), ("anomalous", "anomalous (downwards)"), ("threshold", "threshold")]
    rules = [("threshold", LEFT if threshold is None else axes.at(threshold, 0)[0])]
    if look is not None:
        legend.append(("look", "to be looked at above"))
        rules.append(("look", axes.at(look, 0)[0]))
    alt = f"Histogram of image scores: {len(good)} good images, {len(anomalous)} anomalous ones."
    return _draw(alt, axes, legend, "Image scores", bars=bars, rules=rules)


def score_position(reference: np.ndarray, kind: str, score: float | None, threshold: float | None) -> Markup:
    """The place of an image's score and of the threshold among the scores of other images, which `kind` names."""
    marks = (("threshold", "threshold", threshold), ("score", "this image", score))
    marks = [mark for mark in marks if mark[2] is not None]
    low, high = score_range(reference, score, threshold)
    counts, edges = np.histogram(reference, bins=min(30, max(5, len(reference) // 4)))
    axes = Axes((low, high), (0, int(counts.max())), "image score", "images", whole_y=True)
    legend = [("good", kind), *((style, f"{name}, {value:.4g}") for style, name, value in marks)]
    alt = [f"Histogram of the image scores of {len(reference)} {kind}."]
    alt += [f"{name.capitalize()}: {value:.4g}." for _, name, value in marks]
    rules = [(style, axes.at(value, 0)[0]) for style, _, value in marks]
    return _draw(" ".join(alt), axes, legend, bars=axes.bars("good", counts, edges, 0.5, 1.5), rules=rules)


def score_range(scores: np.ndarray, *marks: float | None) -> tuple[float, float]:
    """The ends of the score axis: a little wider than the scores, and the marks that are not None, so that a threshold
    can pass all or none."""
    values = [*scores.tolist(), *(mark for mark in marks if mark is not None)]
    low, high = min(values), max(values)
    margin = 0.02 * (high - low) or 0.5
    return low - margin, high + margin


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers in low..high: multiples of 1, 2 or 5 times a power of ten, without fractions if `whole`."""
    step = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= MOST_TICKS - 1)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _draw(
    alt: str, axes: Axes, legend: Sequence[tuple[str, str]], caption: str = "", lines: Sequence[Series] = (),
    shades: Sequence[Rect] = (), bars: Sequence[Rect] = (), rules: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Draw, from below: shades, grid, bars, lines, and rules from top to bottom; legend: styles and names."""
    x_ticks = [(*axes.at(value, axes.y[0]), f"{_round(value):g}") for value in ticks(*axes.x, axes.whole_x)]
    y_ticks = []
    for value in ticks(*axes.y, axes.whole_y):
        style = "axis" if axes.mirrored and value == 0 else "grid"
        y_ticks.append((*axes.at(axes.x[0], value), f"{_round(abs(value) if axes.mirrored else value):g}", style))
    return render(
        "chart.html", alt=alt, axes=axes, legend=legend, caption=caption, lines=lines, shades=shades, bars=bars,
        rules=rules, x_ticks=x_ticks, y_ticks=y_ticks, width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT,
        top=TOP, bottom=HEIGHT - BOTTOM,
    )


def _round(value: float) -> float:
    return round(value, 10) + 0.0  # no -0, no 0.30000000000000004
