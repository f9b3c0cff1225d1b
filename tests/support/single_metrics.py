"""Metrics one by one, as `evaluate` gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from utils.metrics import evaluate


def _of_images(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda labels, scores: evaluate(labels, scores, None, np.zeros((len(labels), 1, 1)))[name]


def _of_pixels(name: str) -> Callable[..., float]:
    """masks and anomaly_maps as `evaluate` takes them."""
    return lambda masks, maps: evaluate([np.any(mask) for mask in masks], np.zeros(len(masks)), masks, maps)[name]


image_auroc, image_ap, image_f1_max = map(_of_images, ("image_auroc", "image_ap", "image_f1_max"))
pixel_auroc, pixel_ap, pixel_f1_max = map(_of_pixels, ("pixel_auroc", "pixel_ap", "pixel_f1_max"))
