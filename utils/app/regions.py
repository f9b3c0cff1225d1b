"""A region of interest that is marked by its corners, as a file for train.py --roi. Nothing here knows of the page."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import cv2
import numpy as np

from datasets.problems import count
from datasets.regions import LEAST_SIDE, Point, Polygons, canvas, region_mask, require_region
from utils.drawing.heat_maps import HALO_COLOR, LINE_COLOR
from utils.drawing.pages import jpeg_uri
from utils.system.errors import UsageError

Corners = tuple[Point, ...]  # two: opposite ones of a box; more: those of a polygon

MOST_CORNERS = 100
DIGITS = 3  # of a corner's shares
AT_FRAME = 0.02  # nearer to the frame than this share, a click means the frame
SIDE = 1000  # pixels of the longer side of a picture to be marked, whatever the photograph has
LINE, DOT, HALO = 4, 12, 3  # pixels: width of the outline, radius of a corner, and what is dark around both
BRIGHTNESS = 0.35  # of what is beside the region, as a share
JPEG_QUALITY = 90


def corner_at(place: Any, size: tuple[int, int]) -> Point:
    """The corner at a click on a picture of height and width `size`; place: its x and y in pixels. Raises UsageError
    for anything else."""
    height, width = size
    try:
        x, y = float(place[0]) / width, float(place[1]) / height
    except (TypeError, ValueError, LookupError, OverflowError):
        raise UsageError("This is no place in the photograph.") from None
    return _corner(*(float(round(share)) if min(abs(share), abs(1 - share)) < AT_FRAME else share for share in (x, y)))


def read_corners(text: str) -> Corners:
    """Read corners as `write_corners` writes them. Raises UsageError for anything else."""
    corners = []
    for part in filter(None, map(str.strip, re.split(r"[,;\n]", text))):
        try:
            x, y = map(float, part.split())
        except ValueError:
            raise UsageError(f"{part!r} is no corner; write x and y in percent, such as 10 20, 80 90.") from None
        corners.append(_corner(x / 100, y / 100))
    return check_corners(tuple(corners))


def write_corners(corners: Corners) -> str:
    """Corners as text, in percent of width and height: "10 20, 80.5 90"."""
    return ", ".join(f"{100 * x:.4g} {100 * y:.4g}" for x, y in corners)


def check_corners(corners: Corners) -> Corners:
    """Return the corners. Raises UsageError for more than MOST_CORNERS."""
    if len(corners) > MOST_CORNERS:
        raise UsageError(f"A region has at most {MOST_CORNERS} corners here.")
    return corners


def polygons_of(corners: Corners) -> Polygons:
    """The region with these corners; none of fewer than two."""
    if len(corners) == 2:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*corners, strict=True))
        return (((left, top), (right, top), (right, bottom), (left, bottom)),)
    return (corners,) if corners[2:] else ()


def describe(corners: Corners) -> tuple[str, str]:
    """What the corners make, for a person, and the content of its file for --roi; "" where they make no region."""
    if len(corners) < 2:
        return ("No corner yet.", "One corner; mark the one opposite to it.")[len(corners)], ""
    polygons = polygons_of(corners)
    try:
        require_region(polygons)
    except ValueError as error:
        return f"This is no region: {error}.", ""
    if canvas(polygons).mean() <= LEAST_SIDE**2:  # drawn, a line has an area
        return "This is no region: there is next to nothing between its corners.", ""
    left, top, right, bottom = (*polygons[0][0], *polygons[0][2])
    content = {"box": [left, top, right, bottom]} if len(corners) == 2 else {"polygons": polygons}
    kind = "A box" if len(corners) == 2 else f"A polygon of {count(len(corners), 'corner')}"
    return f"{kind}: {percent_of(polygons)} % of the photograph.", json.dumps(content)


def percent_of(polygons: Polygons) -> str:
    """How much of the photograph a region is, in percent with about two digits."""
    percent = 100 * canvas(polygons).mean()
    return f"{percent:.0f}" if percent >= 9.5 else f"{percent:.2g}"


def pixels_to_mark(uri: str) -> np.ndarray:
    """The pixels of a JPEG file's data URI, whose longer side becomes SIDE: uint8 (H, W, 3) in RGB."""
    content = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    height, width = (max(1, round(side * SIDE / max(pixels.shape))) for side in pixels.shape[:2])
    smooth = cv2.INTER_AREA if max(pixels.shape) > SIDE else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=smooth)


def marked_picture(uri: str, corners: Corners) -> str:
    """The picture of a JPEG file's data URI with the corners, and dimmed beside their region: a data URI."""
    pixels, polygons = pixels_to_mark(uri), polygons_of(corners)
    height, width = pixels.shape[:2]
    if polygons:
        beside = ~region_mask(polygons, (height, width))
        pixels[beside] = (BRIGHTNESS * pixels[beside]).astype(np.uint8)
    lines = [np.rint(np.array(polygon) * (width, height) - 0.5).astype(np.int32) for polygon in polygons]
    dots = [tuple(np.rint(np.array(corner) * (width, height) - 0.5).astype(int).tolist()) for corner in corners]
    for color, wider in ((HALO_COLOR, HALO), (LINE_COLOR, 0)):
        cv2.polylines(pixels, lines, True, color, LINE + 2 * wider, cv2.LINE_AA)
        for dot in dots:
            cv2.circle(pixels, dot, DOT + wider, color, cv2.FILLED, cv2.LINE_AA)
    return jpeg_uri(pixels, JPEG_QUALITY)


def _corner(x: float, y: float) -> Point:
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise UsageError("A corner lies within the photograph: 0 to 100 percent of its width and height.")
    return round(x, DIGITS), round(y, DIGITS)
