"""Metrics of anomaly detection, as pure functions on arrays.

    evaluate(labels, scores, masks, anomaly_maps)  # {"image_auroc": 0.99, ..., "pixel_auroc": 0.98, ..., "aupro": 0.94}

Every metric but `aupro_per_image` is exact: all thresholds count, and pixels with the same score enter together. Values
are fractions in 0..1, float64. docs/metrics.md says which definition each follows, and how others differ.

masks and anomaly_maps are arrays (N, H, W), or sequences of N arrays (H_i, W_i) where images differ in size. masks
hold 0 and 1, 1 = anomalous, and are all 0 for good images; labels (N,) likewise, 1 = anomalous. Scores and maps are of
any scale, larger = more anomalous.

All raise ValueError for wrong shapes, labels and masks other than 0/1, and NaN or infinite scores. A metric that cannot
be computed raises `UndefinedMetric`, and `evaluate` leaves it out; it is never 0.0.
"""

from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np

from utils.metrics.checks import (
    Images,
    check_images,
    check_limit,
    check_maps,
    check_masks,
    check_pixels,
    name_images,
)
from utils.metrics.curves import Corners, Ranking, area, average_precision, corners, f1_max, rank, thin

METRICS = (
    "image_auroc", "image_ap", "image_f1_max",
    "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro", "aupro_per_image",
)
FPR_LIMIT = 0.3
PER_IMAGE_THRESHOLDS = 200


class UndefinedMetric(ValueError):
    """The data are sound, but this metric has no value for them: one class only, or no anomalous pixel."""


def aupro(masks: Images, anomaly_maps: Images, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region-overlap (PRO) curve up to a false-positive rate, divided by that rate.

    MVTec's definition (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021): regions are 8-connected and
    weigh the same, the FPR is over the whole test set; the curve is linear between thresholds and cut exactly.

    0 < fpr_limit <= 1, ValueError for any other. Maps without any information (all equal) give fpr_limit / 2.
    """
    check_limit(fpr_limit)
    masks, anomaly_maps = check_pixels(masks, anomaly_maps)
    return area(corners(rank_pixels(masks, anomaly_maps), _region_weights(masks)), fpr_limit)


def aupro_per_image(masks: Images, anomaly_maps: Images) -> float:
    """PRO as repositories in the line of RD4AD compute it; for comparison with their tables only.

    The mean over anomalous images of the area for each alone: thresholds are equidistant, from its map's minimum on and
    short of its maximum; FPRs below 0.3 stay, divided by the largest. The curve is not extended to FPR 0. An image
    without two different FPRs left has no area and does not count.
    """
    return _mean_area(*check_pixels(masks, anomaly_maps))


def evaluate(labels: np.ndarray, scores: np.ndarray, masks: Images | None, anomaly_maps: Images) -> dict[str, float]:
    """All of METRICS that can be computed, by name; PRO at FPR 0.3.

    `masks` must be None if an anomalous image comes without its mask: as an empty one it would count as free of
    defects. Raises ValueError also for a good image whose mask is not empty.
    """
    labels, scores = check_images(labels, scores)
    anomaly_maps = check_maps(anomaly_maps)
    if len(anomaly_maps) != len(labels):
        raise ValueError(f"anomaly_maps: expected {len(labels)}, one map per label, got {len(anomaly_maps)}")
    metrics = {}
    with suppress(UndefinedMetric):
        metrics |= _ranking_metrics("image", _rank(labels, scores, "images"))
    if masks is None:
        return metrics
    masks = check_masks(masks, anomaly_maps)
    marked = [i for i, mask in enumerate(masks) if not labels[i] and mask.any()]
    if marked:
        raise ValueError(f"masks: anomalous pixels although the label is 0 (good), in {name_images(marked)}")
    with suppress(UndefinedMetric):
        ranking = rank_pixels(masks, anomaly_maps)
        metrics |= _ranking_metrics("pixel", ranking)
        metrics["aupro"] = area(corners(ranking, _region_weights(masks)), FPR_LIMIT)
        del ranking  # its memory
        metrics["aupro_per_image"] = _mean_area(masks, anomaly_maps)
    return metrics


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve over images."""
    return area(corners(_rank(*check_images(labels, scores), "images")))


def image_roc_curve(labels: np.ndarray, scores: np.ndarray) -> Corners:
    """The ROC curve over images, to draw: FPR and recall from (0, 0) to (1, 1)."""
    return thin(corners(_rank(*check_images(labels, scores), "images")))


def pixel_curves(masks: Images, anomaly_maps: Images) -> dict[str, Corners]:
    """The curves over pixels, to draw: {"roc": (FPR, recall), "pro": (FPR, mean overlap)}."""
    masks, anomaly_maps = check_pixels(masks, anomaly_maps)
    ranking = rank_pixels(masks, anomaly_maps)
    return {"roc": thin(corners(ranking)), "pro": thin(corners(ranking, _region_weights(masks)))}


def _mean_area(masks: Images, anomaly_maps: Images) -> float:
    """`aupro_per_image` of what is checked."""
    pairs = ((mask, anomaly_map) for mask, anomaly_map in zip(masks, anomaly_maps, strict=True) if mask.any())
    areas = [value for pair in pairs if (value := _area_of_image(*pair)) is not None]
    if not areas:
        raise UndefinedMetric("no anomalous image has two false-positive rates below the limit")
    return float(np.mean(areas))


def _ranking_metrics(what: str, ranking: Ranking) -> dict[str, float]:
    values = area(corners(ranking)), average_precision(ranking), f1_max(ranking)
    return {f"{what}_{name}": value for name, value in zip(("auroc", "ap", "f1_max"), values, strict=True)}


def _rank(labels: np.ndarray, scores: np.ndarray, what: str) -> Ranking:
    anomalous = np.count_nonzero(labels)
    normal = labels.size - anomalous
    if not anomalous or not normal:
        raise UndefinedMetric(f"needs both anomalous and normal {what}, got {anomalous} anomalous and {normal} normal")
    return rank(labels, scores)


def rank_pixels(masks: Images, anomaly_maps: Images) -> Ranking:
    """The ranking of all pixels, image by image, of what is checked."""
    return _rank(_flatten(masks), _flatten(anomaly_maps), "pixels")


def _flatten(images: Images) -> np.ndarray:
    """All pixels, image by image (n,); without a copy where `images` is an array."""
    if isinstance(images, np.ndarray):
        return images.reshape(-1)
    return np.concatenate([image.reshape(-1) for image in images]) if images else np.empty(0)


def _label_regions(mask: np.ndarray) -> np.ndarray:
    """The number of its region, from 0, for each anomalous pixel, in the order of mask[mask]; mask (H, W) bool."""
    _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return regions[mask] - 1


def _region_weights(masks: Images) -> np.ndarray:
    """1 / size of its region for each anomalous pixel, in the order of all masks' anomalous pixels."""
    weights = np.empty(sum(np.count_nonzero(mask) for mask in masks))
    end = 0
    for mask in masks:
        if mask.any():
            regions = _label_regions(mask)
            start, end = end, end + regions.size
            weights[start:end] = 1.0 / np.bincount(regions)[regions]
    return weights


def _area_of_image(mask: np.ndarray, anomaly_map: np.ndarray) -> float | None:
    """The area of `aupro_per_image` for one image, mask (H, W) bool; None where there is none."""
    if mask.all():
        return None
    lowest, highest = float(anomaly_map.min()), float(anomaly_map.max())  # float64, whatever the map's type
    thresholds = np.linspace(lowest, highest, PER_IMAGE_THRESHOLDS, endpoint=False)
    below = np.searchsorted(thresholds, anomaly_map)  # (H, W) number of thresholds that the pixel is above

    def flagged(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Sum of weights, or number, of the pixels above each threshold."""
        counts = np.bincount(values, weights, minlength=PER_IMAGE_THRESHOLDS + 1)
        return counts[::-1].cumsum()[::-1][1:]

    regions = _label_regions(mask)
    sizes = np.bincount(regions)
    overlap = flagged(below[mask], 1.0 / sizes[regions]) / sizes.size
    fpr = flagged(below[~mask]) / np.count_nonzero(~mask)
    kept = fpr < FPR_LIMIT
    fpr, overlap = fpr[kept][::-1], overlap[kept][::-1]  # rising
    if not fpr.size or fpr[0] == fpr[-1]:
        return None
    return min(area([(fpr / fpr[-1], overlap)]), 1.0)  # in spite of rounding
