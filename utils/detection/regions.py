"""Anomalous regions of an image: the connected parts of its map that are above a threshold, as boxes.

    for region in find_regions(model_map, threshold, (height, width)): ...
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.detection.prediction import is_finite


@dataclass(frozen=True)
class Region:
    """A part of an image whose anomaly map is above the pixel threshold, in the image's own pixels: its box, right and
    bottom just outside, the map's maximum in it, and its area."""

    left: int
    top: int
    right: int
    bottom: int
    score: float
    area: int


def find_regions(model_map: np.ndarray, threshold: float, size: tuple[int, int]) -> list[Region]:
    """The 8-connected parts of a map (S, S) above a threshold, in pixels of its image of `size` (height, width).

    They are found in the map as the model made it, where the threshold holds; none is too small to be one, as the map
    is smooth: a small part is a hill just above the threshold, and the list begins with the highest. Raises ValueError
    for NaN, which is above nothing.
    """
    if not is_finite(model_map, threshold):
        raise ValueError("a map or threshold with NaN or infinite values has no regions")
    above = model_map > threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    highest = np.full(count, -np.inf, np.float32)
    np.maximum.at(highest, labels[above], model_map[above])
    (height, width), (rows, columns) = size, model_map.shape
    regions = []
    for (left, top, wide, high, area), score in zip(stats[1:].tolist(), highest[1:].tolist(), strict=True):
        right, bottom = -(-(left + wide) * width // columns), -(-(top + high) * height // rows)  # rounded up
        area = max(1, round(area * height * width / (rows * columns)))
        regions.append(Region(left * width // columns, top * height // rows, right, bottom, score, area))
    return sorted(regions, key=lambda region: (-region.score, region.top, region.left))
