"""The gallery of a category: its test images with their maps and masks, in the form that report.js reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from datasets.base import Sample
from datasets.names import printable
from utils.data.image_store import Stack
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet
from utils.drawing.data_uris import jpeg_uri, png_uri
from utils.drawing.heat_maps import COLORMAP, map_limits

JPEG_QUALITY = 85
LEVELS = 255  # of a stored map


def gallery_data(
    samples: Sequence[Sample], pictures: Stack, test_set: TestSet, prediction: Prediction, most_images: int
) -> dict[str, Any]:
    """Scores and labels of all images, and the pictures of at most `most_images`.

    Maps are stored in 255 steps of low..high, their smallest and largest value; colours run from cold to hot.
    """
    maps, scores, labels, masks = prediction.maps, prediction.scores, test_set.labels, test_set.masks
    low, high = float(maps.min()), float(maps.max())
    cold, hot = map_limits(maps)
    images = [
        {
            "name": printable(samples[index].name),
            "label": int(labels[index]),
            "score": float(scores[index]),
            "image": jpeg_uri(pictures[index].numpy(), JPEG_QUALITY),
            "map": png_uri(quantise(maps[index], low, high)),
            "mask": png_uri(masks[index] * 255) if masks is not None and labels[index] else None,
        }
        for index in worst_images(labels, scores, most_images)
    ]
    return {
        "low": low, "high": high, "cold": cold, "hot": hot,
        "scores": scores.astype(float).tolist(), "labels": labels.astype(int).tolist(), "images": images,
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


def color_table() -> np.ndarray:
    """The colour map of heat maps, uint8 (256, 3) RGB."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], COLORMAP)[0, :, ::-1]
