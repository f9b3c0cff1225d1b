"""What PRO comes to on one generated test set by each of the definitions in use; docs/metrics.md shows the table.

    python benchmarks/pro_definitions.py

20 images of 128x128, 6 of them good, with blots of very different size, three scratches, and imperfect maps. The last
column is of the same maps to the fourth power: every threshold on the one is a threshold on the other, and flags the
same pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from utils.metrics import aupro, aupro_per_image

GOOD, ANOMALOUS, SCRATCHED, SIZE = 6, 14, 3, 128
LIMIT, THRESHOLDS = 0.3, 200
Curve = tuple[np.ndarray, np.ndarray]  # FPR and PRO, both rising


def make_test_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """masks uint8 and maps float32 in 0..1, both (20, 128, 128); each region is found more or less well."""
    rng = np.random.default_rng(seed)
    masks, maps = np.zeros((2, GOOD + ANOMALOUS, SIZE, SIZE), np.float32)
    for index, (mask, anomaly_map) in enumerate(zip(masks, maps, strict=True)):
        found = np.zeros_like(mask)
        for _ in range(rng.integers(1, 5) if index >= GOOD else 0):
            draw_blot(rng, mask, found)
        if index >= GOOD + ANOMALOUS - SCRATCHED:
            draw_scratch(rng, mask, found)
        noise = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), 6)
        anomaly_map[:] = rng.uniform(0.8, 1.2) * (cv2.GaussianBlur(found, (0, 0), 4) + 2.5 * noise)
    return masks.astype(np.uint8), (maps - maps.min()) / (maps.max() - maps.min())


def draw_blot(rng: np.random.Generator, mask: np.ndarray, found: np.ndarray) -> None:
    """An ellipse, in `found` a little beside it and as bright as it is conspicuous."""
    centre, radii = rng.integers(10, SIZE - 10, 2), np.ceil(2 ** rng.uniform(0, 4.5, 2)).astype(int).tolist()
    angle, moved = rng.uniform(0, 180), centre + rng.integers(-3, 4, 2)
    cv2.ellipse(mask, centre.tolist(), radii, angle, 0, 360, 1, -1)
    cv2.ellipse(found, moved.tolist(), radii, angle, 0, 360, rng.uniform(0.3, 2), -1)


def draw_scratch(rng: np.random.Generator, mask: np.ndarray, found: np.ndarray) -> None:
    """A line one pixel wide, whose pixels touch at corners."""
    start = rng.integers(20, SIZE - 20, 2)
    end = start + rng.integers(-20, 21, 2)
    cv2.line(mask, start.tolist(), end.tolist(), 1)
    cv2.line(found, start.tolist(), end.tolist(), rng.uniform(1, 3), 3)


def regions_of(mask: np.ndarray, connectivity: int) -> list[np.ndarray]:
    """One bool mask (H, W) per region."""
    count, labelled = cv2.connectedComponents(mask, connectivity=connectivity)
    return [labelled == label for label in range(1, count)]


def curve_at(masks: np.ndarray, maps: np.ndarray, thresholds: np.ndarray, connectivity: int = 8) -> Curve:
    """FPR and PRO over all images, of the pixels above each of the thresholds."""
    thresholds = np.sort(thresholds)[::-1]
    regions = [
        anomaly_map[region]
        for mask, anomaly_map in zip(masks, maps, strict=True)
        for region in regions_of(mask, connectivity)
    ]
    normal = maps[masks == 0]
    fpr = np.array([np.mean(normal > threshold) for threshold in thresholds])
    pro = np.array([np.mean([np.mean(region > threshold) for region in regions]) for threshold in thresholds])
    return fpr, pro


def trapezoids(fpr: np.ndarray, pro: np.ndarray) -> float:
    return float(np.sum(np.diff(fpr) * (pro[1:] + pro[:-1])) / 2)


def rescaled_area(fpr: np.ndarray, pro: np.ndarray) -> float:
    """Thresholds with an FPR below the limit only, their FPRs divided by the largest."""
    kept = fpr < LIMIT
    return trapezoids(fpr[kept] / fpr[kept].max(), pro[kept])


def cut_area(fpr: np.ndarray, pro: np.ndarray) -> float:
    """Thresholds with an FPR up to the limit only, the area divided by the limit: what is beyond the last is lost."""
    kept = fpr <= LIMIT
    return trapezoids(fpr[kept], pro[kept]) / LIMIT


def interpolated_area(fpr: np.ndarray, pro: np.ndarray) -> float:
    """From (0, 0) to the limit exactly, straight between thresholds."""
    fpr, pro = np.append(0, fpr), np.append(0, pro)
    x = np.append(fpr[fpr < LIMIT], LIMIT)
    return trapezoids(x, np.append(pro[fpr < LIMIT], np.interp(LIMIT, fpr, pro))) / LIMIT


def equidistant(maps: np.ndarray, count: int = THRESHOLDS) -> np.ndarray:
    """From the lowest score of all images on, short of the highest."""
    return np.linspace(float(maps.min()), float(maps.max()), count, endpoint=False)


DEFINITIONS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "MVTec's: whole set, every threshold, cut at FPR 0.3 (`aupro`)": lambda masks, maps: aupro(masks, maps, LIMIT),
    "– good images not counted": lambda masks, maps: aupro(masks[GOOD:], maps[GOOD:], LIMIT),
    "– 200 equidistant thresholds": lambda masks, maps: interpolated_area(*curve_at(masks, maps, equidistant(maps))),
    "– 200 thresholds, 4-connected regions": lambda masks, maps: interpolated_area(
        *curve_at(masks, maps, equidistant(maps), connectivity=4)
    ),
    "– 200 thresholds, those up to FPR 0.3, not interpolated": lambda masks, maps: cut_area(
        *curve_at(masks, maps, equidistant(maps))
    ),
    "– 200 thresholds, those below FPR 0.3, FPR rescaled": lambda masks, maps: rescaled_area(
        *curve_at(masks, maps, equidistant(maps))
    ),
    "RD4AD's: each image alone, 200 thresholds, rescaled (`aupro_per_image`)": aupro_per_image,
}


def format_table(seed: int) -> str:
    """In percent, as Markdown."""
    masks, maps = make_test_set(seed)
    lines = ["| PRO | percent | points from MVTec's | percent, maps to the 4th power |", "|---|---|---|---|"]
    exact = aupro(masks, maps, LIMIT)
    for name, definition in DEFINITIONS.items():
        value, of_power = definition(masks, maps), definition(masks, maps.astype(np.float64) ** 4)
        lines.append(f"| {name} | {100 * value:.2f} | {100 * (value - exact):+.2f} | {100 * of_power:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0, help="of the generated test set (default 0)")
    print(format_table(parser.parse_args().seed))


if __name__ == "__main__":
    main()
