"""Regions of interest: polygons, in shares of the photograph, beside which nothing trains, scores or alarms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from msgspec import Meta, Struct

from datasets.base import IMAGE_SUFFIXES, DataError, load_mask
from datasets.names import printable
from datasets.plain_json import read_json, typed

Point = tuple[float, float]  # x and y, shares of width and height
Polygons = tuple[tuple[Point, ...], ...]  # what an odd number of them holds is inside
Box = tuple[float, float, float, float]  # top, bottom, left, right, as shares

LEAST_SIDE = 1 / 32  # of what is shown of a photograph
MOST_POINTS = 2000  # of a region's polygons
CANVAS = 1024  # pixels: a region's edges are as fine as this
SHIFT = 8  # binary digits of the parts of a pixel that OpenCV draws by
SUFFIXES = (*IMAGE_SUFFIXES, ".json")

Share = Annotated[float, Meta(ge=0, le=1)]


class Stated(Struct, forbid_unknown_fields=True):
    """A region in a JSON file of its own: left, top, right, bottom, or polygons of (x, y); shares of the photograph."""

    box: Annotated[list[Share], Meta(min_length=4, max_length=4)] | None = None
    polygons: list[list[Annotated[list[Share], Meta(min_length=2, max_length=2)]]] = []


def read_region(path: Path) -> Polygons:
    """Read a region of interest: a mask image (what is not black), shapes in a JSON file of Labelme, or a JSON file of
    `box` or `polygons`. Raises DataError naming the file if it cannot be used, or has nothing in it."""
    try:
        polygons = _stated(path) if path.suffix.lower() == ".json" else None
        polygons = _polygons_of(load_mask(path)) if polygons is None else polygons
        require_region(polygons)
    except (OSError, ValueError) as error:
        raise DataError(f"region of interest {printable(path)}: {error}") from error
    return polygons


def find_region(path: Path, category: str) -> Path:
    """The file of a category's region: the one given or, in a folder, the one named like the category. Raises DataError
    where there is none, or more than one."""
    if not path.is_dir():
        return path
    named = sorted(file for file in path.iterdir() if file.stem == category and file.suffix.lower() in SUFFIXES)
    if len(named) != 1:
        there = "has several files" if named else "has no file"
        raise DataError(f"the folder {printable(path)} {there} {printable(category)}.png, .json, ... with a region")
    return named[0]


def require_region(polygons: Polygons) -> None:
    """Raise ValueError unless these are polygons that an image can be cropped to."""
    check_polygons(polygons)
    top, bottom, left, right = bounds_of(polygons)
    if min(bottom - top, right - left) < LEAST_SIDE:
        raise ValueError(f"it is lower or narrower than 1/{1 / LEAST_SIDE:.0f} of the photograph")


def check_polygons(polygons: Polygons) -> None:
    """Raise ValueError unless these are polygons within the photograph, with an area."""
    points = [point for polygon in polygons for point in polygon]
    numbers = all(len(point) == 2 and all(isinstance(value, float | int) for value in point) for point in points)
    if not points or not numbers or not all(0 <= value <= 1 for point in points for value in point):
        raise ValueError("it needs polygons of points (x, y) within 0..1")
    if any(len(polygon) < 3 for polygon in polygons):
        raise ValueError("a polygon has fewer than three points")
    top, bottom, left, right = bounds_of(polygons)
    if top == bottom or left == right:
        raise ValueError("it has no area")


def bounds_of(polygons: Polygons) -> Box:
    """The smallest box that holds all polygons."""
    x, y = np.array([point for polygon in polygons for point in polygon]).T
    return float(y.min()), float(y.max()), float(x.min()), float(x.max())


def region_mask(polygons: Polygons, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of an image or map of height and width `shape` that are in the region: bool (H, W)."""
    rows, columns = (canvas_places(side) for side in shape)
    return canvas(polygons)[rows][:, columns]


@lru_cache(maxsize=64)
def canvas(polygons: Polygons) -> np.ndarray:
    """The region drawn once for images of all sizes: bool (CANVAS, CANVAS)."""
    drawn = np.zeros((CANVAS, CANVAS), np.uint8)
    corners = [np.rint((np.array(polygon) * CANVAS - 0.5) * 2**SHIFT).astype(np.int32) for polygon in polygons]
    mask = cv2.fillPoly(drawn, corners, 1, shift=SHIFT) > 0
    mask.setflags(write=False)
    return mask


def canvas_places(side: int) -> np.ndarray:
    """The rows or columns of the canvas that the pixels along a side lie in: (side,)."""
    return ((2 * np.arange(side) + 1) * CANVAS) // (2 * side)


def _stated(path: Path) -> Polygons | None:
    """The region in a JSON file of our own kind; None for any other."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"box", "polygons"} & content.keys():
        return None
    stated = typed(content, Stated)
    if stated.box is not None:
        left, top, right, bottom = stated.box
        return (((left, top), (right, top), (right, bottom), (left, bottom)),)
    return tuple(tuple(map(tuple, polygon)) for polygon in stated.polygons)


def _polygons_of(mask: np.ndarray) -> Polygons:
    """The outlines of a mask uint8 (H, W), holes too, with at most MOST_POINTS points together."""
    if not mask.any():
        raise ValueError("nothing is marked in it")
    doubled = mask.repeat(2, axis=0).repeat(2, axis=1)  # outlines run through pixels: half as far inside
    outlines, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    tolerance = 0.5
    simple = _simplify(outlines, tolerance)
    while sum(map(len, simple)) > MOST_POINTS:
        tolerance *= 2
        simple = _simplify(outlines, tolerance)
    if not simple:
        raise ValueError("all that is marked in it is too small")
    ends = np.array(doubled.shape[::-1]) - 1  # outlines at the frame are the frame
    return tuple(tuple((float(x), float(y)) for x, y in outline[:, 0] / ends) for outline in simple)


def _simplify(outlines: Sequence[np.ndarray], tolerance: float) -> list[np.ndarray]:
    simple = [cv2.approxPolyDP(outline, tolerance, closed=True) for outline in outlines]
    return [outline for outline in simple if len(outline) > 2]
