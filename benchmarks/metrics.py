"""Time and memory of the metrics on generated maps, beside scikit-learn and PRO by brute force, in one run.

    python benchmarks/metrics.py

Times are seconds of processor time on one core, the median of interleaved repetitions: unlike the clock's they do not
count what other work on the machine takes. Memory is what evaluate() allocates at its peak, beyond its inputs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when the libraries are imported
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from benchmarks.pro_definitions import THRESHOLDS, equidistant, interpolated_area, rescaled_area
from utils.cli import at_least
from utils.metrics import aupro, aupro_per_image, evaluate
from utils.metrics.curves import Ranking, area, average_precision, corners, f1_max, rank

PACKAGES = ("numpy", "scikit-learn", "scikit-image", "opencv-python-headless")
Images = tuple[np.ndarray, np.ndarray]  # masks bool and maps float32, (N, S, S)


def generate(count: int, anomalous: int, size: int, share: float, seed: int = 0) -> Images:
    """Smooth noise with a bump over each region; about `share` of the pixels of all images are anomalous.

    Regions are discs; above one half, the discs are what is left free of defects.
    """
    rng = np.random.default_rng(seed)
    discs_share = min(share, 1 - share) * count / anomalous
    masks, maps = np.zeros((count, size, size), bool), np.empty((count, size, size), np.float32)
    for index in range(count):
        discs = np.zeros((size, size), np.uint8)
        while index < anomalous and discs.mean() < discs_share:
            radius = int(size * rng.uniform(0.1, 0.35) * np.sqrt(discs_share))
            cv2.circle(discs, rng.integers(0, size, 2).tolist(), max(radius, 1), 1, -1)
        if index < anomalous:
            masks[index] = discs if share < 0.5 else 1 - discs
        noise = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), size / 64)
        bumps = cv2.GaussianBlur(masks[index].astype(np.float32), (0, 0), size / 64)
        maps[index] = noise / noise.std() + rng.uniform(1, 4) * bumps
    return masks, maps


def overlaps(masks: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and PRO at equidistant thresholds over the images given, every region visited at every threshold."""
    coordinates = [[tuple(region.coords.T) for region in regionprops(label(mask, connectivity=2))] for mask in masks]
    normal = ~masks
    num_normal = np.count_nonzero(normal)
    fpr, pro = np.empty((2, THRESHOLDS))
    for step, threshold in enumerate(equidistant(maps)):
        flagged = maps > threshold
        fpr[step] = np.count_nonzero(flagged & normal) / num_normal
        pro[step] = np.mean(
            [image[region].mean() for image, regions in zip(flagged, coordinates, strict=True) for region in regions]
        )
    return fpr[::-1], pro[::-1]


def brute_aupro_per_image(masks: np.ndarray, maps: np.ndarray) -> float:
    pairs = zip(masks, maps, strict=True)
    return float(np.mean([rescaled_area(*overlaps(mask[None], image[None])) for mask, image in pairs if mask.any()]))


def sklearn_f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / (precision + recall)))


def flat(metric: Callable) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda masks, maps: metric(masks.reshape(-1), maps.reshape(-1))


def ranked(metric: Callable[[Ranking], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    return flat(lambda labels, scores: metric(rank(labels, scores)))


RIVALS = {
    "pixel AUROC": (ranked(lambda ranking: area(corners(ranking))), "scikit-learn", flat(roc_auc_score)),
    "pixel AP": (ranked(average_precision), "scikit-learn", flat(average_precision_score)),
    "pixel F1-max": (ranked(f1_max), "scikit-learn", flat(sklearn_f1_max)),
    "PRO": (aupro, "brute force, 200 thresholds", lambda *images: interpolated_area(*overlaps(*images))),
    "PRO per image": (aupro_per_image, "brute force, 200 thresholds", brute_aupro_per_image),
}


def time_calls(calls: dict[str, Callable[[], object]], repetitions: int) -> tuple[dict[str, float], dict[str, object]]:
    """The median processor time of each call, taken in turns, and what it returned."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results = {}
    for _ in range(repetitions):
        for name, call in calls.items():
            start = time.process_time()
            results[name] = call()
            seconds[name].append(time.process_time() - start)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}, results


def compare_times(count: int, anomalous: int, size: int, repetitions: int) -> None:
    masks, maps = generate(count, anomalous, size, share=0.03)
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    calls: dict[str, Callable[[], object]] = {"evaluate": lambda: evaluate(labels, scores, masks, maps)}
    for name, (ours, _, theirs) in RIVALS.items():
        calls[name] = lambda metric=ours: metric(masks, maps)
        calls[f"{name}, other"] = lambda metric=theirs: metric(masks, maps)
    seconds, values = time_calls(calls, repetitions)
    print(f"{count} maps of {size}x{size}, {anomalous} anomalous, {masks.mean():.1%} of the pixels; "
          f"{len(np.unique(maps)) / maps.size:.0%} of the scores differ")
    print("| metric | here, s | other, s | ratio | value here | value other | difference | other |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (_, rival, _) in RIVALS.items():
        here, other = seconds[name], seconds[f"{name}, other"]
        value, value_other = values[name], values[f"{name}, other"]
        print(f"| {name} | {here:.2f} | {other:.2f} | {other / here:.1f} | {value:.6f} | {value_other:.6f} "
              f"| {value - value_other:+.0e} | {rival} |")
    others = sum(seconds[f"{name}, other"] for name in RIVALS)
    print(f"| all eight, evaluate() | {seconds['evaluate']:.2f} | {others:.2f} | {others / seconds['evaluate']:.1f} | "
          "| | | the five above |")


def measure_memory(count: int, size: int, share: float) -> None:
    masks, maps = generate(count, round(0.75 * count) if share < 0.5 else count, size, share)
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    tracemalloc.start()  # NumPy reports its arrays
    start = time.process_time()
    evaluate(labels, scores, masks, maps)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"| {masks.mean():.1%} | {peak / masks.size:.1f} | {peak / 2**20:.0f} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--images", type=at_least(2), default=83, help="maps to time (default 83, 63 of them anomalous)")
    add("--size", type=at_least(32), default=256, help="their height and width (default 256)")
    add("--repetitions", type=at_least(1), default=3, help="of each timing (default 3)")
    add("--memory_images", type=at_least(2), default=200, help="maps to measure memory with (default 200)")
    add("--memory_size", type=at_least(32), default=512, help="their height and width (default 512)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES))
    compare_times(options.images, round(options.images * 63 / 83), options.size, options.repetitions)
    size = f"{options.memory_size}x{options.memory_size}"
    print(f"\nevaluate() on {options.memory_images} maps of {size}, float32, masks bool")
    print("| anomalous pixels | peak beyond the inputs, bytes a pixel | MiB | s |\n|---|---|---|---|")
    for share in (0.03, 0.97):
        measure_memory(options.memory_images, options.memory_size, share)


if __name__ == "__main__":
    main()
