"""The parts of the app's page that show one image: its verdict, its heat map, its place among the scores of good ones.

Pure functions to HTML; names of files pass through `escape`. Pictures are data URIs: nothing is written to disk.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from datasets.problems import count
from datasets.view import enlarge
from utils.detection.detector import Detection, Detector, Region
from utils.detection.files import Record
from utils.drawing.charts import score_position
from utils.drawing.heat_maps import blend_heat

MOST_SIDE = 1280  # pixels of a picture's longer side: a photograph of 50 megapixels would take a browser seconds
JPEG_QUALITY = 90
WORDS = {True: ("anomalous", "✕", "Anomalous"), False: ("good", "✓", "Good"), None: ("unknown", "–", "No verdict")}
HINT = "Images are PNG, JPEG, BMP, TIFF, WebP or GIF files; of those with several, the first counts."


@dataclass(frozen=True)
class Picture:
    """A photograph and its heat map as data URIs, of the photograph's shape."""

    photograph: str
    heat_map: str

    @classmethod
    def of(cls, path: Path, found: Detection, limits: tuple[float, float], detector: Detector) -> Picture:
        """limits: ends of the colour scale. Raises DataError if the file cannot be read (any more)."""
        pixels = shrink(detector.view.load(path, detector.most_pixels))
        heat = blend_heat(pixels, enlarge(found.model_map, pixels.shape[:2]), limits)
        return cls(jpeg_uri(pixels), jpeg_uri(heat))


def shrink(pixels: np.ndarray, most_side: int = MOST_SIDE) -> np.ndarray:
    """An image uint8 (H, W, 3) with sides of at most so many pixels."""
    height, width = pixels.shape[:2]
    if max(height, width) <= most_side:
        return pixels
    scale = most_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def jpeg_uri(pixels: np.ndarray) -> str:
    """An RGB image uint8 (H, W, 3) as a data URI."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)  # BGR
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"


def verdict_panel(record: Record | None, threshold: float | None) -> str:
    """In large words what is said of an image, and the figures; or why nothing can be."""
    if record is None:
        return '<div class="verdict empty"><p>Add an image: its verdict, heat map and score are shown here.</p></div>'
    name = escape(str(record.path))
    if record.found is None:
        return (
            f'<div class="verdict failed" role="alert"><p class="word"><span aria-hidden="true">!</span> Not scored</p>'
            f'<p class="name">{name}</p><p>{escape(record.error)}</p><p class="soft">{HINT}</p></div>'
        )
    found = record.found
    style, sign, word = WORDS[found.is_anomalous]
    figures = {"Score": f"{found.score:.4f}"}
    if threshold is not None:
        figures["Threshold"] = f"{threshold:.4f}"
    if found.p_value is not None:
        figures["p-value"] = f"{found.p_value:.4f}"
    if found.is_anomalous:
        figures["Regions"] = str(len(found.regions))
    items = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in figures.items())
    return (
        f'<div class="verdict {style}" role="status"><p class="word"><span aria-hidden="true">{sign}</span> {word}</p>'
        f'<p class="name">{name}</p><dl>{items}</dl></div>'
    )


def picture_panel(record: Record | None, picture: Picture | None) -> str:
    """The heat map of an image with boxes around the regions; a switch shows the photograph in its place."""
    if record is None or record.found is None or picture is None:
        return ""
    found, name = record.found, escape(str(record.path), quote=True)
    height, width = found.size
    alt, shape = f"Heat map of {name}", f"aspect-ratio: {width} / {height}; --shape: {width / height:.4f}"
    if found.regions:
        alt += f", {count(len(found.regions), 'anomalous region')} outlined"
    return (
        f'<figure class="picture"><div class="frame" style="{shape}">'
        f'<img class="photograph" src="{picture.photograph}" alt="Photograph {name}">'
        f'<img class="heat" src="{picture.heat_map}" alt="{alt}">{region_boxes(found.regions, height, width)}</div>'
        '<figcaption><label><input type="checkbox"> Photograph without colours</label>'
        '<span class="scale"><span>like good ones</span><span class="ramp"></span><span>far from them</span></span>'
        "</figcaption></figure>"
    )


def region_boxes(regions: Sequence[Region], height: int, width: int) -> str:
    """Boxes around regions, in the pixels of their image, as SVG to be laid over it: a bright line on a dark one."""
    boxes = []
    for region in regions:
        place = (
            f'x="{region.left}" y="{region.top}" width="{region.right - region.left}" '
            f'height="{region.bottom - region.top}"'
        )
        title = f"<title>score {region.score:.4f}, {count(region.area, 'pixel')}</title>"
        boxes.append(f'<rect class="halo" {place}/><rect class="box" {place}>{title}</rect>')
    return f'<svg class="boxes" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(boxes)}</svg>'


def histogram_panel(detector: Detector, score: float | None, seen: Sequence[float]) -> str:
    """The score of an image and the threshold among the scores of good images or, without those, of `seen` ones."""
    if detector.thresholds:
        good = np.array(detector.thresholds.scores)
        return score_position(good, "good images kept aside", score, detector.image_threshold)
    return score_position(np.array(seen), "images scored here", score, detector.image_threshold) if len(seen) else ""


def download_link(csv: str) -> str:
    """A link that saves a text as predictions.csv."""
    content = base64.b64encode(csv.encode()).decode("ascii")
    return f'<a class="download" download="predictions.csv" href="data:text/csv;base64,{content}">Download as CSV</a>'
