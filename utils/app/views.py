"""The parts of the app's page that show one image, as HTML in which pictures are data URIs: none is on disk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.base import DataError
from datasets.problems import count
from datasets.regions import Polygons
from datasets.view import enlarge
from utils.app.session import Results, explain_threshold, explain_view
from utils.detection.detector import Detection, Detector
from utils.detection.pictures import colour_limits
from utils.detection.records import Record
from utils.detection.thresholds import ANOMALOUS, GOOD, LOOK
from utils.drawing.charts import score_position
from utils.drawing.heat_maps import blend_heat
from utils.drawing.pages import data_uri, jpeg_uri, open_templates, shrink

MOST_SIDE = 1280  # pixels of a picture's longer side: a photograph of 50 megapixels would take a browser seconds
JPEG_QUALITY = 90
WORDS = {
    ANOMALOUS: ("anomalous", "✕", "Anomalous"), LOOK: ("look", "?", "Look at it"), GOOD: ("good", "✓", "Good"),
    None: ("unknown", "–", "No verdict"),
}
TEMPLATES = Path(__file__).parent / "templates"

render = open_templates(TEMPLATES)


@dataclass(frozen=True)
class Picture:
    """A photograph and its heat map as data URIs, of the photograph's shape."""

    photograph: str
    heat_map: str

    @classmethod
    def of(cls, path: Path, detection: Detection, limits: tuple[float, float], detector: Detector) -> Picture:
        """Read the file again; limits: ends of the colour scale. Raises DataError if it cannot be read (any more)."""
        pixels = shrink(detector.view.load(path, detector.most_pixels), MOST_SIDE)
        shape = pixels.shape[:2]
        heat = blend_heat(pixels, enlarge(detection.model_map, shape), limits, detector.heat_weight(shape))
        return cls(jpeg_uri(pixels, JPEG_QUALITY), jpeg_uri(heat, JPEG_QUALITY))


@dataclass(frozen=True)
class Visit:
    """The results of a visitor with the picture of the chosen image, or why there is none."""

    results: Results = Results()
    picture: Picture | None = None
    problem: str = ""

    @classmethod
    def of(cls, results: Results, detector: Detector) -> Visit:
        if not results.records or results.chosen.detection is None:
            return cls(results)
        limits, path = colour_limits(detector, results.records), results.paths[results.index]
        with suppress(DataError):
            return cls(results, Picture.of(path, results.chosen.detection, limits, detector))
        return cls(results, problem="The image is no longer here to be shown; add it again.")

    def panels(self, detector: Detector) -> tuple[str, str, str, str]:
        """Fill the page's verdict, picture, histogram and explanation, by the detector's thresholds."""
        chosen = self.results.chosen
        score = chosen.detection.score if chosen and chosen.detection else None
        by_rate = detector.thresholds if detector.threshold is None else None
        look = by_rate and by_rate.look_threshold
        interest = (detector.shown or detector.view).region
        scores, kind = self.results.scores, "images scored here"
        if detector.thresholds:
            scores, kind = detector.thresholds.scores, "good images kept aside"
        return (
            verdict_panel(chosen, detector.image_threshold, look),
            text_panel(self.problem, "alert") if self.problem else picture_panel(chosen, self.picture, interest),
            score_position(np.array(scores), kind, score, detector.image_threshold) if len(scores) else "",
            text_panel(explain_threshold(detector), "explanation") + text_panel(explain_view(detector), "view"),
        )


def text_panel(text: str, kind: str) -> str:
    """A "heading", an "alert", or a note with `kind` as its id."""
    return render("text.html", text=text, kind=kind)


def verdict_panel(record: Record | None, threshold: float | None, look: float | None = None) -> str:
    """The verdict on an image in large words, and the figures, the thresholds among them; or why there can be none."""
    detection = record and record.detection
    style, sign, word = WORDS[detection.verdict if detection else None]
    return render("verdict.html", record=record, detection=detection, threshold=threshold, look=look, style=style,
                  sign=sign, word=word)


def picture_panel(record: Record | None, picture: Picture | None, interest: Polygons = ()) -> str:
    """The heat map of an image with boxes around the regions, dimmed beside the model's region of interest; a switch
    shows the photograph in its place."""
    if record is None or record.detection is None or picture is None:
        return ""
    height, width = record.detection.size
    outline = "".join(f"M{' '.join(f'{x * width:.1f},{y * height:.1f}' for x, y in points)}Z" for points in interest)
    return render("picture.html", name=record.path, regions=record.detection.regions, picture=picture, height=height,
                  width=width, outline=outline, count=count)


def marked_panel(text: str, content: str) -> str:
    """What has been marked, and a link that saves the region's file as region.json, where there is content for it."""
    return render("marked.html", text=text, uri=content and data_uri("application/json", content.encode()))


def download_link(csv: str) -> str:
    """A link that saves a text as predictions.csv."""
    return render("download.html", uri=data_uri("text/csv", csv.encode()))
