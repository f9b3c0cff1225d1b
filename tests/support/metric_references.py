"""Slow references of the metrics, written from their definitions: every threshold, every region, every pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Images = Sequence[np.ndarray]  # (N, H, W), or N arrays (H_i, W_i)
Pixel = tuple[int, int, int]  # image, row, column


def find_regions(masks: Images) -> list[list[Pixel]]:
    """8-connected regions by flood fill."""
    left = {(n, int(row), int(column)) for n, mask in enumerate(masks) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        todo, region = [left.pop()], []
        while todo:
            n, row, column = todo.pop()
            region.append((n, row, column))
            near = {(n, row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo += near
        regions.append(region)
    return regions


def overlap_curve(
    masks: Images, maps: Images, thresholds: Sequence[float], strictly: bool
) -> tuple[list[float], list[float]]:
    """FPR and PRO at each threshold, where pixels are flagged that are (`strictly`) above it."""
    regions = [np.array([maps[n][row, column] for n, row, column in region]) for region in find_regions(masks)]
    normal = np.concatenate([image[mask == 0] for mask, image in zip(masks, maps, strict=True)])

    def share(scores: np.ndarray, threshold: float) -> float:
        return float(np.mean(scores > threshold if strictly else scores >= threshold))

    pro = [float(np.mean([share(region, threshold) for region in regions])) for threshold in thresholds]
    return [share(normal, threshold) for threshold in thresholds], pro


def slow_area(x: Sequence[float], y: Sequence[float], limit: float) -> float:
    """Area under straight lines between points of rising x, up to x = limit."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        stop = min(x1, limit)
        if x0 < stop:
            y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
            total += (stop - x0) * (y0 + y_stop) / 2
    return total


def slow_aupro(masks: Images, maps: Images, limit: float) -> float:
    thresholds = sorted({value for image in maps for value in image.ravel().tolist()}, reverse=True)
    fpr, pro = overlap_curve(masks, maps, thresholds, strictly=False)
    return slow_area([0.0, *fpr], [0.0, *pro], limit) / limit


def slow_spro(regions: Sequence[Sequence[tuple[np.ndarray, float]]], maps: Images, limit: float) -> float:
    """regions: of each image the mask and the saturation threshold in pixels of each."""
    drawn = [[mask for mask, _ in some] for some in regions]
    masks = [sum(some, np.zeros(image.shape)) > 0 for some, image in zip(drawn, maps, strict=True)]
    curve = [(0.0, 0.0)]
    for threshold in sorted({value for image in maps for value in image.ravel().tolist()}, reverse=True):
        false = total = 0
        overlaps = []
        for some, mask, image in zip(regions, masks, maps, strict=True):
            found = image >= threshold
            false, total = false + int(np.sum(found & ~mask)), total + int(np.sum(~mask))
            overlaps += [min(float(np.sum(found & (region > 0))) / pixels, 1.0) for region, pixels in some]
        curve.append((false / total, float(np.mean(overlaps))))
    return slow_area(*zip(*curve, strict=True), limit) / limit


def slow_aupro_per_image(masks: Images, maps: Images) -> float | None:
    """None where no image counts."""
    areas = []
    for mask, image in zip(masks, maps, strict=True):
        if not mask.any() or mask.all():
            continue
        lowest, step = float(image.min()), (float(image.max()) - float(image.min())) / 200
        thresholds = [lowest + i * step for i in range(200)]
        points = sorted(zip(*overlap_curve([mask], [image], thresholds, strictly=True), strict=True))
        fpr, pro = zip(*[point for point in points if point[0] < 0.3] or [(0.0, 0.0)], strict=True)
        if len(set(fpr)) > 1:
            areas.append(slow_area([x / fpr[-1] for x in fpr], pro, limit=1.0))
    return float(np.mean(areas)) if areas else None


def slow_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of the pairs in which the anomalous one scores higher, equal ones counting one half."""
    positives, negatives = scores[labels == 1][:, None], scores[labels == 0]
    return float(np.mean((positives > negatives) + 0.5 * (positives == negatives)))


def found_and_flagged(labels: np.ndarray, scores: np.ndarray) -> list[tuple[int, int]]:
    """Number of anomalous and of all elements scoring at least each threshold, from the highest down."""
    thresholds = sorted(set(scores.tolist()), reverse=True)
    return [(int(np.sum(labels[scores >= t] == 1)), int(np.sum(scores >= t))) for t in thresholds]


def slow_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    total, before = 0.0, 0
    for found, flagged in found_and_flagged(labels, scores):
        total += (found - before) * found / flagged
        before = found
    return total / before


def slow_f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    """The highest harmonic mean of precision and recall."""
    values = [0.0]
    for found, flagged in found_and_flagged(labels, scores):
        if found:
            precision, recall = found / flagged, found / np.sum(labels == 1)
            values.append(float(2 / (1 / precision + 1 / recall)))
    return max(values)


def flatten(images: Images) -> np.ndarray:
    return np.concatenate([image.ravel() for image in images])


def slow_pixel_metrics(masks: Images, maps: Images) -> dict[str, float]:
    """All metrics over pixels that can be computed."""
    labels, scores = flatten(masks), flatten(maps)
    metrics = {
        "pixel_auroc": slow_auroc(labels, scores),
        "pixel_ap": slow_ap(labels, scores),
        "pixel_f1_max": slow_f1_max(labels, scores),
        "aupro": slow_aupro(masks, maps, limit=0.3),
        "aupro_per_image": slow_aupro_per_image(masks, maps),
    }
    return {name: value for name, value in metrics.items() if value is not None}


def random_case(seed: int, num_values: int) -> tuple[np.ndarray, np.ndarray]:
    """masks and maps (4, 7, 6); `num_values` different scores, so that few means many ties; image 0 is good."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((4, 7, 6)) < rng.uniform(0.05, 0.4)).astype(np.uint8)
    masks[0] = 0
    masks[1, 2, 3] = 1
    maps = rng.integers(0, num_values, masks.shape) / num_values + 0.3 * masks * rng.integers(0, 2)
    return masks, maps.astype(np.float32)


def random_sizes(seed: int, num_values: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """masks and maps of five different sizes; image 0 is good."""
    rng = np.random.default_rng(seed)
    shapes = [(6, 5), (9, 4), (3, 11), (1, 7), (8, 8)]
    masks = [(rng.random(shape) < 0.25).astype(np.uint8) for shape in shapes]
    masks[0][:] = 0
    masks[4][2, 3] = 1
    maps = [(rng.integers(0, num_values, mask.shape) / num_values + 0.2 * mask).astype(np.float32) for mask in masks]
    return masks, maps
