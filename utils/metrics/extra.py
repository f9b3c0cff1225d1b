"""Metrics that single data sets define besides METRICS; arguments, values and errors as in definitions.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.saturation import Region
from utils.metrics.checks import Images, check_limit, check_maps, check_pixels
from utils.metrics.curves import area, corners
from utils.metrics.definitions import UndefinedMetric, rank_pixels

LOW_FPR_LIMIT = 0.05


def spro(regions: Sequence[Sequence[Region]], anomaly_maps: Images, fpr_limit: float = LOW_FPR_LIMIT) -> float:
    """Area under the saturated per-region-overlap (sPRO) curve up to a false-positive rate, divided by that rate.

    Bergmann et al., "Beyond Dents and Scratches" (IJCV 2022): the overlap of a region of P pixels is the number found
    divided by its saturation threshold, share * P, and at most 1. Regions weigh the same, and may have pixels in
    common; pixels of none are defect-free. The curve is that of `aupro` otherwise, with which sPRO agrees where all
    shares are 1 and the regions are those of the masks.

    regions: those of each image, none of good ones; those without a pixel do not count.
    """
    check_limit(fpr_limit)
    anomaly_maps = check_maps(anomaly_maps)
    if len(regions) != len(anomaly_maps):
        raise ValueError(f"regions: expected {len(anomaly_maps)}, a list per anomaly map, got {len(regions)}")
    masks, weights = zip(*map(_saturated_weights, regions, anomaly_maps), strict=True) if len(regions) else ((), ())
    curve = corners(rank_pixels(masks, anomaly_maps), np.concatenate(weights))
    return min(area(curve, fpr_limit), 1.0)  # in spite of rounding


def f1_above(masks: Images, anomaly_maps: Images, threshold: float) -> float:
    """F1 of the pixels of all images that score above a threshold, which must not depend on them."""
    masks, anomaly_maps = check_pixels(masks, anomaly_maps)
    flagged = [anomaly_map > threshold for anomaly_map in anomaly_maps]
    hits = sum(np.count_nonzero(mask & found) for mask, found in zip(masks, flagged, strict=True))
    anomalous, positives = (sum(map(np.count_nonzero, images)) for images in (masks, flagged))
    if not anomalous:
        raise UndefinedMetric("needs anomalous pixels, got none")
    return 2 * hits / (anomalous + positives)


def _saturated_weights(regions: Sequence[Region], anomaly_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask of an image, bool (H, W), and how much each pixel in it adds to the sum of the overlaps, in the order of
    its pixels: the highest scores of a region add alike until it saturates, the others nothing."""
    scores = anomaly_map.reshape(-1)
    weights, mask = np.zeros(scores.size), np.zeros(scores.size, bool)
    for pixels, share in regions:
        falling = pixels[np.argsort(scores[pixels])[::-1]]
        overlaps = np.minimum(np.arange(pixels.size + 1) / (share * max(pixels.size, 1)), 1.0)
        weights[falling] += np.diff(overlaps)
        mask[pixels] = True
    return mask.reshape(anomaly_map.shape), weights[mask]
