"""Thresholds of runs that are trained: from good images, or for another rate from the scores of before."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.base import DataError
from datasets.names import printable
from datasets.problems import MOST_SHOWN, count
from utils.data.facts import FactStore
from utils.data.finding import find_images
from utils.detection.detector import Detector, ModelInput, load_detector, pick_category
from utils.detection.files import Notes, read_batches
from utils.detection.prediction import Predictor, load_predictor
from utils.detection.rates import shortage
from utils.detection.thresholds import GIVEN, LargestPixels, Thresholds, read_thresholds, write_thresholds
from utils.runs.folder import Run, open_runs, trained_categories
from utils.system.errors import RunError, UsageError
from utils.system.files import in_parallel

MOST_NAMED = 3  # images that an error names
Batch = tuple[Sequence[Path], np.ndarray]  # images uint8 (N * windows, h, w, 3) as they are shown
Written = tuple[Path, str, Thresholds]  # run folder, category, its thresholds


def calibrate(
    predictor: Predictor, batches: Iterable[Batch], far: float, source: str, look: float | None = None
) -> Thresholds:
    """Thresholds by what good images score that training has not seen.

    Raises PredictionError for those of which the model makes no finite numbers.
    """
    scores, pixels, names = [], LargestPixels(), []
    for paths, images in batches:
        prediction = predictor.maps(images, paths)
        scores += prediction.scores.tolist()
        names += [printable("/".join(path.parts[-2:])) for path in paths]
        pixels.add(prediction.maps)
    return Thresholds.from_scores(scores, pixels, far, source, predictor.word, names, look)


def calibrate_run(
    run: Path, images: Sequence[str], far: float, look: float | None = None, *,
    categories: Sequence[str] | None = None, device: Any = "cpu", batch_size: int = 16, workers: int = 1,
) -> Iterator[Written]:
    """Set the thresholds of one category, for every seed of the run, by good images: files, folders and patterns.

    Raises RunError if it is not clear which category, UsageError for images of the training, DataError listing those
    that cannot be read; nothing is written then.
    """
    if categories and len(categories) > 1:
        raise UsageError("`images` are of one category: give one `categories`")
    category = pick_category(run, categories[0] if categories else None)
    files = find_images(images)
    digests = digests_of(files.all_paths(), workers)
    if files.note():
        print(files.note(), file=sys.stderr)
    runs = open_runs(run)
    refuse_training_images(runs, category, digests, workers)
    paths = without_copies(digests)
    warn(len(paths), far, category)
    for one in runs:
        predictor, _, _ = load_predictor(one.category(category), device, batch_size)
        thresholds = calibrate(predictor, read_all(Detector(**vars(predictor)), paths, workers), far, GIVEN, look)
        write_thresholds(one.folder, category, thresholds)
        yield one.folder, category, thresholds


def move_thresholds(
    run: Path, far: float, look: float | None = None, *, categories: Sequence[str] | None = None, device: Any = "cpu"
) -> Iterator[Written]:
    """Set categories' thresholds for another rate. RunError if one asked for has none, or those of another model."""
    folders = [one.folder for one in open_runs(run)]
    names = [pick_category(run, name) for name in categories or trained_categories(run)]
    before = {(folder, name): read_thresholds(folder, name) for folder in folders for name in names}
    missing = sorted({name for (_, name), thresholds in before.items() if thresholds is None})
    if missing and (categories or len(missing) == len(names)):
        raise RunError(f"{run} has no thresholds of {', '.join(missing) or 'any category'}; give good `images`")
    known = {key: thresholds for key, thresholds in before.items() if thresholds}
    for folder, name in known:
        load_detector(folder, name, device=device)  # refuses those of another model
    for (folder, name), thresholds in known.items():
        moved = thresholds.at(far, look)
        warn(len(moved.scores), far, name)
        write_thresholds(folder, name, moved)
        yield folder, name, moved


def warn(images: int, far: float, category: str) -> None:
    if text := shortage(images, far):
        print(printable(f"warning: {category}: {text}"), file=sys.stderr)


def refuse_training_images(runs: Sequence[Run], category: str, digests: Mapping[Path, str], workers: int) -> None:
    """UsageError if images are those of the training, under whatever names: what a model was trained on scores too low.
    Of runs from before, which do not say what they were trained on, the training data are looked at."""
    known = [run.category(category).training_images for run in runs]
    trained = set().union(*filter(None, known))
    if None in known:
        trained |= digests_of_data(runs[0], category, workers)
    same = [path for path, digest in digests.items() if digest and digest in trained]
    if same:
        named = ", ".join(printable(path) for path in same[:MOST_NAMED])
        raise UsageError(
            f"`images`: {count(len(same), 'image')} of the training data, e.g. {named}: thresholds need images that "
            "training has not seen; train with `calibration` to keep some aside"
        )


def digests_of(paths: Sequence[Path], workers: int, cache_dir: Path = Path("cache")) -> dict[Path, str]:
    """The digest of each image's decoded values, "" of those that cannot be read; `cache_dir` is that of train.py."""
    facts = FactStore(cache_dir)
    digests = in_parallel(lambda path: facts.of_image(path).digest, paths, workers)
    return dict(zip(paths, digests, strict=True))


def digests_of_data(run: Run, category: str, workers: int) -> set[str]:
    """Digests of the training images as far as they are still where they were; where not, stderr says so."""
    settings = run.settings
    try:
        samples = settings.open_data([category]).samples(category, "train")
    except (DataError, OSError):
        data = printable(settings.data_root)
        print(f"warning: {run.folder} does not say which images it was trained on, and they are not in {data} any "
              "more: make sure yourself that the images given are others", file=sys.stderr)
        return set()
    return set(digests_of([sample.image_path for sample in samples], workers).values())


def without_copies(digests: Mapping[Path, str]) -> list[Path]:
    """The images, each once; stderr names the copies."""
    first: dict[str, Path] = {}
    original = {path: first.setdefault(digest or str(path), path) for path, digest in digests.items()}
    if copies := [path for path, other in original.items() if other != path]:
        example = f"{printable(copies[0])} equals {printable(original[copies[0]])}"
        print(f"warning: {count(len(copies), 'image')} left out, being copies of others: {example}", file=sys.stderr)
    return list(first.values())


def read_all(detector: Detector, paths: Sequence[Path], workers: int) -> Iterator[Batch]:
    """All images in batches; a DataError at the end lists those that cannot be read."""
    problems, notes = [], Notes()
    for batch in read_batches(detector, paths, workers):
        read = {path: content for path, content in batch if isinstance(content, ModelInput)}
        problems += [str(content) for path, content in batch if path not in read]
        for path, content in read.items():
            notes.add(path, content.remarks)
        if read:
            yield list(read), np.concatenate([content.pixels for content in read.values()])
    notes.print()
    if problems:
        raise DataError(f"{len(problems)} of {count(len(paths), 'image')} cannot be used:", *problems[:MOST_SHOWN])
