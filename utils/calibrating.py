"""Thresholds of runs that are trained: from good images, or for another rate from the scores of before."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets import open_dataset
from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count
from utils.cli import UsageError
from utils.detector import Detector, Shown, calibrate_detector, load_detector, pick_category
from utils.predicting import find_images, read_batches
from utils.runs import RunError, read_config, seed_folders, trained_categories
from utils.thresholds import GIVEN, Thresholds, read_thresholds, shortage, write_thresholds

Set = tuple[Path, str, Thresholds]  # run folder, category, what was written


def calibrate_run(args: argparse.Namespace) -> Iterator[Set]:
    """Set the thresholds of one category, for every seed of the run, by the good images of --images.

    Raises RunError if it is not clear which category, UsageError for images of the training, DataError listing those
    that cannot be read; nothing is written then.
    """
    if args.categories and len(args.categories) > 1:
        raise UsageError("--images are of one category: give one --categories")
    category = pick_category(args.run, args.categories[0] if args.categories else None)
    paths = find_images(args.images)
    folders = seed_folders(args.run)
    refuse_training_images(folders[0], category, paths)
    warn(len(paths), args.far, category)
    for folder in folders:
        detector = load_detector(folder, category, device=args.device, batch_size=args.batch_size)
        thresholds = calibrate_detector(detector, read_all(detector, paths, args.workers), args.far, GIVEN)
        write_thresholds(folder, category, thresholds)
        yield folder, category, thresholds


def move_thresholds(args: argparse.Namespace) -> Iterator[Set]:
    """Set the thresholds of categories for another rate; RunError if one that is asked for has none."""
    folders = seed_folders(args.run)
    names = [pick_category(args.run, name) for name in args.categories or trained_categories(args.run)]
    found = {(folder, name): read_thresholds(folder, name) for folder in folders for name in names}
    missing = sorted({name for (_, name), thresholds in found.items() if thresholds is None})
    if missing and (args.categories or len(missing) == len(names)):
        raise RunError(f"{args.run} has no thresholds of {', '.join(missing) or 'any category'}; give good --images")
    for (folder, name), thresholds in found.items():
        if thresholds is not None:
            moved = thresholds.at(args.far)
            warn(len(moved.scores), args.far, name)
            write_thresholds(folder, name, moved)
            yield folder, name, moved


def warn(images: int, far: float, category: str) -> None:
    if text := shortage(images, far):
        print(printable(f"warning: {category}: {text}"), file=sys.stderr)


def refuse_training_images(folder: Path, category: str, paths: Sequence[Path]) -> None:
    """UsageError if images are of the run's training data, as far as these are still where they were: what a model was
    trained on scores too low."""
    config = read_config(folder)
    try:
        trained = open_dataset(config["data_root"], config["dataset"], [category]).samples(category, "train")
    except (DataError, OSError):
        return
    known = {os.path.realpath(sample.image_path) for sample in trained}
    same = [path for path in paths if os.path.realpath(path) in known]
    if same:
        raise UsageError(
            f"--images: {count(len(same), 'image')} of the training data, e.g. {same[0]}: thresholds need images that "
            "training has not seen; train with --calibration to keep some aside"
        )


def read_all(detector: Detector, paths: Sequence[Path], workers: int) -> Iterator[np.ndarray]:
    """All images in batches uint8 (N, S, S, 3) as the model is shown them; a DataError at the end lists those that
    cannot be read."""
    problems = []
    for batch in read_batches(detector, paths, workers):
        problems += [str(content) for _, content in batch if not isinstance(content, Shown)]
        shown = [content.pixels for _, content in batch if isinstance(content, Shown)]
        if shown:
            yield np.stack(shown)
    if problems:
        raise DataError(f"{len(problems)} of {count(len(paths), 'image')} cannot be used:", *problems[:MOST_SHOWN])
