"""Metrics of anomaly detection, as pure functions on arrays.

    from utils.metrics import evaluate
    evaluate(labels, scores, masks, anomaly_maps)  # {"image_auroc": 0.99, "pixel_auroc": 0.98, "aupro": 0.94}

Every metric is exact: all thresholds count, and pixels with the same score enter together. A metric that cannot be
computed raises `UndefinedMetric`, and `evaluate` leaves it out; it is never 0.0. Values are fractions in 0..1, float64.

How: a threshold matters only where it lets anomalous pixels in. So the defect-free scores are sorted by value, the
few anomalous ones are ranked, and looking these up among the former gives every corner of every curve. Each pixel is
sorted once, and all the pixel metrics of a category share that.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np


class UndefinedMetric(ValueError):
    """The data are sound, but this metric has no value for them: one class only, or no anomalous pixel."""


def image_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve over images; ties count one half.

    labels (N,) 0/1, 1 = anomalous; scores (N,) of any scale, larger = more anomalous. Returns a fraction in 0..1.

    Raises UndefinedMetric (a ValueError) if only one class is present, and ValueError for wrong shapes, labels other
    than 0/1, and NaN or infinite scores.
    """
    labels, scores = _check_images(labels, scores)
    return _auroc(_rank(labels, scores, "images"))


def pixel_auroc(masks: np.ndarray, anomaly_maps: np.ndarray) -> float:
    """Area under the ROC curve over all pixels of all images; ties count one half.

    masks (N, H, W) 0/1, 1 = anomalous, all 0 for good images; anomaly_maps (N, H, W) of any scale, larger = more
    anomalous. Returns a fraction in 0..1.

    Raises UndefinedMetric (a ValueError) if there is no anomalous or no defect-free pixel, and ValueError for wrong
    shapes, masks other than 0/1, and NaN or infinite values.
    """
    masks, anomaly_maps = _check_pixels(masks, anomaly_maps)
    return _auroc(_rank(masks, anomaly_maps, "pixels"))


def aupro(masks: np.ndarray, anomaly_maps: np.ndarray, fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap (PRO) curve up to a false-positive rate, divided by that rate.

    MVTec's definition (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021): over the whole test set of
    a category, the PRO at a threshold is the mean over all ground-truth regions (8-connected, each weighted equally)
    of the share of the region that is found; the FPR is the share of all defect-free pixels, those of good images
    included, that is flagged. The curve is linear between thresholds and is cut exactly at the limit.

    masks (N, H, W) 0/1 and anomaly_maps (N, H, W) as in `pixel_auroc`; 0 < fpr_limit <= 1. Returns a fraction in
    0..1; maps without any information (all equal) give fpr_limit / 2.

    Raises as `pixel_auroc` does, and ValueError for a limit out of range.
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must be above 0 and at most 1, got {fpr_limit}")
    masks, anomaly_maps = _check_pixels(masks, anomaly_maps)
    return _aupro(_rank(masks, anomaly_maps, "pixels"), masks, fpr_limit)


def evaluate(
    labels: np.ndarray, scores: np.ndarray, masks: np.ndarray | None, anomaly_maps: np.ndarray
) -> dict[str, float]:
    """All metrics of one category that can be computed, by name: image_auroc, pixel_auroc, aupro (at FPR 0.3).

    labels (N,) 0/1, scores (N,), masks (N, H, W) 0/1, anomaly_maps (N, H, W). `masks` must be None if an anomalous
    image comes without its mask: as an empty mask it would count as free of defects.

    Raises ValueError for wrong shapes or values, and for a good image whose mask is not empty.
    """
    labels, scores = _check_images(labels, scores)
    anomaly_maps = _check_maps(anomaly_maps)
    _require_shape("anomaly_maps", anomaly_maps, (len(labels), *anomaly_maps.shape[1:]), "one map per label")
    metrics = {}
    with suppress(UndefinedMetric):
        metrics["image_auroc"] = _auroc(_rank(labels, scores, "images"))
    if masks is None:
        return metrics
    masks = _check_masks(masks, anomaly_maps)
    marked = np.flatnonzero(~labels & masks.any(axis=(1, 2)))
    if marked.size:
        raise ValueError(f"masks: anomalous pixels although the label is 0 (good), in {_name_images(marked)}")
    with suppress(UndefinedMetric):
        ranking = _rank(masks, anomaly_maps, "pixels")
        metrics["pixel_auroc"] = _auroc(ranking)
        metrics["aupro"] = _aupro(ranking, masks, fpr_limit=0.3)
    return metrics


# ---- Curves ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranking:
    """Where P positives, in T groups of equal score from the highest down, stand among the negatives."""

    order: np.ndarray  # (P,) positives in the order of falling score, as indices into scores[labels]
    group_ends: np.ndarray  # (T,) number of positives with a score >= that of the group
    negatives_above: np.ndarray  # (T,) number of negatives with a score > that of the group
    negatives_from: np.ndarray  # (T,) number of negatives with a score >= that of the group
    num_negatives: int


def _rank(labels: np.ndarray, scores: np.ndarray, what: str) -> _Ranking:
    """labels bool and scores, both of one shape; `what` names their elements in the error."""
    positives, negatives = scores[labels], scores[~labels]
    if not positives.size or not negatives.size:
        raise UndefinedMetric(
            f"needs both anomalous and normal {what}, got {positives.size} anomalous and {negatives.size} normal"
        )
    negatives.sort()
    order = np.argsort(positives)[::-1]
    positives = positives[order]
    group_ends = np.append(np.flatnonzero(positives[1:] != positives[:-1]) + 1, positives.size)
    thresholds = positives[group_ends - 1]
    return _Ranking(
        order=order,
        group_ends=group_ends,
        negatives_above=negatives.size - np.searchsorted(negatives, thresholds, side="right"),
        negatives_from=negatives.size - np.searchsorted(negatives, thresholds, side="left"),
        num_negatives=negatives.size,
    )


def _curve(ranking: _Ranking, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the curve from (0, 0) to (1, 1): FPR, and the weighted share of positives found, both (2 T + 2,).

    weights (P,) of the positives in the order of scores[labels]; all equal when None.
    """
    if weights is None:
        found = ranking.group_ends / ranking.group_ends[-1]
    else:
        found = np.cumsum(weights[ranking.order])[ranking.group_ends - 1]
        found /= found[-1]
    num_groups = len(found)
    fpr, recall = np.zeros(2 * num_groups + 2), np.zeros(2 * num_groups + 2)
    fpr[1:-1:2], recall[3:-1:2] = ranking.negatives_above / ranking.num_negatives, found[:-1]
    fpr[2:-1:2], recall[2:-1:2] = ranking.negatives_from / ranking.num_negatives, found
    fpr[-1] = recall[-1] = 1.0
    return fpr, recall


def _area(x: np.ndarray, y: np.ndarray, limit: float = 1.0) -> float:
    """Area under the polyline (x rising from 0 to 1, y) from 0 to `limit`, divided by `limit`."""
    end = np.searchsorted(x, limit, side="right")  # the first corner beyond the limit
    if end < len(x):
        share = (limit - x[end - 1]) / (x[end] - x[end - 1])
        y_limit = y[end - 1] + share * (y[end] - y[end - 1])
        x, y = np.append(x[:end], limit), np.append(y[:end], y_limit)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit)


def _auroc(ranking: _Ranking) -> float:
    return _area(*_curve(ranking))


def _aupro(ranking: _Ranking, masks: np.ndarray, fpr_limit: float) -> float:
    return _area(*_curve(ranking, _region_weights(masks)), limit=fpr_limit)


def _region_weights(masks: np.ndarray) -> np.ndarray:
    """1 / size of its region for each anomalous pixel, in the order of masks[masks]; masks (N, H, W) bool."""
    weights = []
    for mask in masks:
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            regions = regions[mask]
            weights.append(1.0 / np.bincount(regions)[regions])
    return np.concatenate(weights)


# ---- Checks ----------------------------------------------------------------------------------------------------------


def _check_images(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1:
        raise ValueError(f"labels: expected shape (N,), got {labels.shape}")
    _require_shape("scores", scores, labels.shape, "one score per label")
    _require_finite("scores", scores)
    return _to_bool("labels", labels), scores


def _check_pixels(masks: np.ndarray, anomaly_maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    anomaly_maps = _check_maps(anomaly_maps)
    return _check_masks(masks, anomaly_maps), anomaly_maps


def _check_maps(anomaly_maps: np.ndarray) -> np.ndarray:
    anomaly_maps = np.asarray(anomaly_maps)
    if anomaly_maps.ndim != 3:
        raise ValueError(f"anomaly_maps: expected shape (N, H, W), got {anomaly_maps.shape}")
    _require_finite("anomaly_maps", anomaly_maps)
    return anomaly_maps


def _check_masks(masks: np.ndarray, anomaly_maps: np.ndarray) -> np.ndarray:
    masks = np.asarray(masks)
    _require_shape("masks", masks, anomaly_maps.shape, "that of anomaly_maps")
    return _to_bool("masks", masks)


def _require_shape(name: str, values: np.ndarray, shape: tuple[int, ...], why: str) -> None:
    if values.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} ({why}), got {values.shape}")


def _require_finite(name: str, values: np.ndarray) -> None:
    """values (N, ...) must be real numbers, none of them NaN or infinite."""
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got dtype {values.dtype}")
    finite = np.isfinite(values)
    if not finite.all():
        num_nan = np.count_nonzero(np.isnan(values))
        num_infinite = values.size - np.count_nonzero(finite) - num_nan
        images = np.unique(np.nonzero(~finite)[0])
        raise ValueError(f"{name}: {num_nan} NaN and {num_infinite} infinite values, in {_name_images(images)}")


def _to_bool(name: str, values: np.ndarray) -> np.ndarray:
    """values (N, ...) of 0 and 1 as bool."""
    if values.dtype == bool:
        return values
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        images = np.unique(np.nonzero(wrong)[0])
        raise ValueError(f"{name}: expected 0 and 1 only, got {values[wrong][0]} in {_name_images(images)}")
    return values.astype(bool)


def _name_images(indices: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in indices[:10])
    more = f" and {len(indices) - 10} more" if len(indices) > 10 else ""
    return f"image{'s' if len(indices) > 1 else ''} {shown}{more} (counted from 0)"
