"""Score a run of train.py on the test set: one row per category, and a Mean row.

    python test.py --data_root data/mvtec                        # the newest run of that data set
    python test.py --data_root data/mvtec --run runs/NAME --save_maps

Prints I-AUROC, P-AUROC and PRO in percent; writes results.csv and results.json (fractions, full precision) into the run
folder and, with --save_maps, heat maps over the images into its maps/ folder.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets import open_dataset
from datasets.base import DataError, Sample
from datasets.loading import check_readable
from models.weights import WeightsError
from utils.checkpoint import CheckpointError, load_model
from utils.cli import DEFAULT_WORKERS, at_least, pick_device, run_command, user_path
from utils.evaluation import TestSet, evaluate_model
from utils.report import environment, format_table, write_csv, write_json
from utils.runs import RunError, newest_run, read_config, trained_categories
from utils.visualize import map_limits, save_heat_map

PROTOCOL = "last epoch; PRO over the whole test set, 8-connected regions, FPR limit 0.3"
LOCAL_SETTINGS = ("data_root", "aux_path", "command")  # paths of one machine stay out of results.json


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add("--run", type=user_path, metavar="DIR", help="run folder of train.py (default: newest of this data in runs/)")
    add("--categories", nargs="+", metavar="NAME", help="categories to score (default: all that were trained)")
    add("--save_maps", action="store_true", help="write heat maps over the images, ground truth outlined")
    add("--batch_size", type=at_least(1), default=16, metavar="N", help="images at a time (default 16)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (default auto)")
    add("--workers", type=at_least(1), default=DEFAULT_WORKERS, metavar="N", help="threads that read files "
        f"(default {DEFAULT_WORKERS})")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = pick_device(args.device)
    run = args.run or newest_run(args.data_root)
    settings = read_config(run)
    samples = find_samples(args, run, settings)
    rows: dict[str, dict[str, float]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for category in tqdm(samples, desc="scoring", unit="category", disable=None):
        started = time.perf_counter()
        model, training_seconds = load_model(run, category, settings)
        model = model.to(device, memory_format=torch.channels_last)
        test_set = TestSet.load(samples[category], settings["image_size"], args.workers)
        rows[category], maps = evaluate_model(model, test_set, args.batch_size)
        if args.save_maps:
            save_maps(run / "maps" / category, samples[category], test_set, maps)
        seconds[category] = {"training": training_seconds, "testing": time.perf_counter() - started}
    write_results(run, rows, seconds, settings, str(device))
    print(f"{run} ({PROTOCOL})\n{format_table(rows)}")


def find_samples(args: argparse.Namespace, run: Path, settings: dict[str, Any]) -> dict[str, list[Sample]]:
    """The test samples of each category that is scored, all files checked; says what is left out."""
    trained = trained_categories(run)
    if not trained:
        raise RunError(f"{run} has no trained category yet")
    untrained = [category for category in args.categories or [] if category not in trained]
    if untrained:
        raise RunError(f"{run} has no trained {', '.join(untrained)}; it has: {', '.join(trained)}")
    source = open_dataset(args.data_root, settings["dataset"], args.categories or trained)
    if source.missing:
        print(f"trained, but not in {args.data_root}: {', '.join(source.missing)}", file=sys.stderr)
    samples = {category: source.samples(category, "test") for category in source.categories}
    empty = [category for category, found in samples.items() if not found]
    if empty:
        raise DataError(f"no test images of {', '.join(empty)} in {args.data_root}; there is nothing to score")
    every = [sample for found in samples.values() for sample in found]
    check_readable([s.image_path for s in every] + [s.mask_path for s in every if s.mask_path], args.workers)
    return samples


def save_maps(folder: Path, samples: list[Sample], test_set: TestSet, maps: np.ndarray) -> None:
    limits = map_limits(maps)
    for index, sample in enumerate(tqdm(samples, desc=f"heat maps of {folder.name}", leave=False)):
        mask = test_set.masks[index] if test_set.masks is not None else None
        save_heat_map(folder / f"{sample.name}.png", test_set.images[index].numpy(), maps[index], mask, limits)


def write_results(
    run: Path, rows: dict[str, dict[str, float]], seconds: dict[str, dict[str, float]], settings: dict[str, Any],
    device: str,
) -> None:  # fmt: skip
    info = {
        "protocol": PROTOCOL,
        "settings": {name: value for name, value in settings.items() if name not in LOCAL_SETTINGS},
        "commands": [settings["command"], shlex.join(["python", *sys.argv])],
        "seconds": seconds,
        "device": device,
        "environment": environment(),
    }
    write_csv(run / "results.csv", rows)
    write_json(run / "results.json", rows, info)


if __name__ == "__main__":
    run_command(main, WeightsError, CheckpointError, RunError)
