"""Thresholds of runs that are trained: from good images, or for another rate from the scores of before."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets import open_dataset
from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count
from utils.data.facts import FactStore
from utils.data.finding import find_images
from utils.detection.detector import Detector, Shown, calibrate_detector, load_detector, pick_category
from utils.detection.files import Notes, read_batches
from utils.detection.thresholds import GIVEN, Thresholds, read_thresholds, shortage, write_thresholds
from utils.runs.folder import Run, open_runs, trained_categories
from utils.system.errors import RunError, UsageError
from utils.system.files import in_parallel

CACHE_DIR = Path("cache")  # of train.py, by default: files that it knows need not be opened again
MOST_NAMED = 3  # images that an error names
Set = tuple[Path, str, Thresholds]  # run folder, category, what was written


def calibrate_run(args: argparse.Namespace) -> Iterator[Set]:
    """Set the thresholds of one category, for every seed of the run, by the good images of --images.

    Copies of an image count once. Raises RunError if it is not clear which category, UsageError for images of the
    training, DataError listing those that cannot be read; nothing is written then.
    """
    if args.categories and len(args.categories) > 1:
        raise UsageError("--images are of one category: give one --categories")
    category = pick_category(args.run, args.categories[0] if args.categories else None)
    found = find_images(args.images)
    paths = found.all_paths()
    if found.note():
        print(found.note(), file=sys.stderr)
    runs = open_runs(args.run)
    digests = digests_of(paths, args.workers, CACHE_DIR)
    refuse_training_images(runs, category, digests, args.workers)
    paths = without_copies(digests)
    warn(len(paths), args.far, category)
    for folder in (run.folder for run in runs):
        how = {"device": args.device, "batch_size": args.batch_size, "with_thresholds": False}
        detector, names = load_detector(folder, category, **how), []
        images = read_all(detector, paths, args.workers, names)
        thresholds = calibrate_detector(detector, images, args.far, GIVEN, names)
        write_thresholds(folder, category, thresholds)
        yield folder, category, thresholds


def move_thresholds(args: argparse.Namespace) -> Iterator[Set]:
    """Set the thresholds of categories for another rate; RunError if one that is asked for has none, or those of
    another model."""
    folders = [run.folder for run in open_runs(args.run)]
    names = [pick_category(args.run, name) for name in args.categories or trained_categories(args.run)]
    found = {(folder, name): read_thresholds(folder, name) for folder in folders for name in names}
    missing = sorted({name for (_, name), thresholds in found.items() if thresholds is None})
    if missing and (args.categories or len(missing) == len(names)):
        raise RunError(f"{args.run} has no thresholds of {', '.join(missing) or 'any category'}; give good --images")
    found = {key: thresholds for key, thresholds in found.items() if thresholds is not None}
    for folder, name in found:
        load_detector(folder, name, device=args.device)  # refuses those of another model
    for (folder, name), thresholds in found.items():
        moved = thresholds.at(args.far)
        warn(len(moved.scores), args.far, name)
        write_thresholds(folder, name, moved)
        yield folder, name, moved


def warn(images: int, far: float, category: str) -> None:
    if text := shortage(images, far):
        print(printable(f"warning: {category}: {text}"), file=sys.stderr)


def refuse_training_images(
    runs: Sequence[Run], category: str, digests: Mapping[Path, str], workers: int
) -> None:
    """UsageError if images are those of the training, under whatever names: what a model was trained on scores too low.

    Runs from before do not say what they were trained on: then the training data are looked at, where they are.
    """
    known = [run.category(category).training_images for run in runs]
    trained = set().union(*(seen for seen in known if seen is not None))
    if None in known:
        trained |= digests_of_data(runs[0], category, workers)
    same = [path for path, digest in digests.items() if digest and digest in trained]
    if same:
        named = ", ".join(printable(path) for path in same[:MOST_NAMED])
        raise UsageError(
            f"--images: {count(len(same), 'image')} of the training data, e.g. {named}: thresholds need images that "
            "training has not seen; train with --calibration to keep some aside"
        )


def digests_of(paths: Sequence[Path], workers: int, cache_dir: Path) -> dict[Path, str]:
    """The digest of each image's decoded values; "" of those that cannot be read. Those that `cache_dir` knows are not
    opened."""
    facts = FactStore(cache_dir)
    digests = in_parallel(lambda path: facts.of_image(path).digest, paths, workers)
    return dict(zip(paths, digests, strict=True))


def digests_of_data(run: Run, category: str, workers: int) -> set[str]:
    """Of the training images as far as they are still where they were; where not, stderr says so."""
    settings = run.settings
    try:
        samples = open_dataset(settings.data_root, settings.dataset, [category]).samples(category, "train")
    except (DataError, OSError):
        data = printable(settings.data_root)
        print(f"warning: {run.folder} does not say which images it was trained on, and they are not in {data} any "
              "more: make sure yourself that --images are others", file=sys.stderr)
        return set()
    return set(digests_of([sample.image_path for sample in samples], workers, CACHE_DIR).values())


def without_copies(digests: Mapping[Path, str]) -> list[Path]:
    """The images, each once; stderr names the copies."""
    first: dict[str, Path] = {}
    original = {path: first.setdefault(digest or str(path), path) for path, digest in digests.items()}
    paths = [path for path, other in original.items() if other == path]
    if copies := [path for path, other in original.items() if other != path]:
        example = f"{printable(copies[0])} equals {printable(original[copies[0]])}"
        print(f"warning: {count(len(copies), 'image')} left out, being copies of others: {example}", file=sys.stderr)
    return paths


def read_all(detector: Detector, paths: Sequence[Path], workers: int, names: list[Path]) -> Iterator[np.ndarray]:
    """All images in batches uint8 (N, S, S, 3) as the model is shown them, whose names are added to `names`; a
    DataError at the end lists those that cannot be read."""
    problems, notes = [], Notes()
    for batch in read_batches(detector, paths, workers):
        problems += [str(content) for _, content in batch if not isinstance(content, Shown)]
        used = [(path, content) for path, content in batch if isinstance(content, Shown)]
        for path, content in used:
            notes.add(path, content.remarks)
        names += [path for path, _ in used]
        if used:
            yield np.stack([content.pixels for _, content in used])
    notes.print()
    if problems:
        raise DataError(f"{len(problems)} of {count(len(paths), 'image')} cannot be used:", *problems[:MOST_SHOWN])
