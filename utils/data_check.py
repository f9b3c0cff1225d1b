"""Look at every file of a data set, before anything is trained or scored on it, and tell all that is wrong at once.

    samples, problems = check_source(open_dataset("data/mvtec"), workers=8, cache_dir=Path("cache"))

scripts/check_data.py lists the problems; train.py and test.py refuse errors, or with --skip_bad go on without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datasets import DataSource
from datasets.base import DataError, Sample
from datasets.names import is_utf8
from datasets.pairing import SPLITS
from datasets.problems import Problem, error, warning
from utils.file_facts import Facts, FactStore
from utils.misc import in_parallel

Splits = dict[str, list[Sample]]  # "train" or "test" -> samples


class Checked(NamedTuple):
    """What is in a data set, and what is wrong with it.

    The samples are those of each category and split that can be listed, with unreadable files and all.
    """

    samples: dict[str, Splits]
    problems: list[Problem]


class Known(NamedTuple):
    """The facts of all files."""

    images: Mapping[Path, Facts]
    masks: Mapping[Path, Facts]


def check_source(source: DataSource, splits: Sequence[str] = SPLITS, *, workers: int, cache_dir: Path) -> Checked:
    """Check all files of the source's categories, opened in `workers` threads; those that the cache knows are not.

    Problems come category by category: those of the lists, of the files in the samples' order, then images that are
    both in training and test. Nothing is raised for a category that cannot be listed: that is a problem too.
    """
    samples: dict[str, Splits] = {}
    problems: dict[str, list[Problem]] = {}
    for category in source.categories:
        samples[category], problems[category] = _list_category(source, category, splits)
    known = _see_files([s for parts in samples.values() for part in parts.values() for s in part], workers, cache_dir)
    for category, parts in samples.items():
        for part in parts.values():
            problems[category] += [problem for sample in part for problem in _check_sample(sample, known)]
        problems[category] += _find_copies(parts, known)
    return Checked(samples, [problem for found in problems.values() for problem in found])


def _list_category(source: DataSource, category: str, splits: Sequence[str]) -> tuple[Splits, list[Problem]]:
    if not is_utf8(category):
        message = "category's name is not UTF-8, and could not be written to a run's files"
        return {}, [error(message, source.root / category)]
    samples, problems = {}, []
    for split in splits:
        try:
            samples[split], found = source.list_samples(category, split)
        except DataError as reason:
            found = [error("category cannot be used", source.root / category, details=str(reason))]
        problems += found
    return samples, problems


def _see_files(samples: Sequence[Sample], workers: int, cache_dir: Path) -> Known:
    store = FactStore(cache_dir)
    images = list(dict.fromkeys(sample.image_path for sample in samples))
    masks = list(dict.fromkeys(sample.mask_path for sample in samples if sample.mask_path))
    jobs = [(store.of_image, path) for path in images] + [(store.of_mask, path) for path in masks]
    found = in_parallel(lambda job: job[0](job[1]), jobs, workers)
    try:
        facts = list(tqdm(found, total=len(jobs), desc="checking files", unit="file", leave=False))
    finally:
        store.save()  # when it is interrupted, too
    return Known(
        dict(zip(images, facts[: len(images)], strict=True)), dict(zip(masks, facts[len(images) :], strict=True))
    )


def _check_sample(sample: Sample, known: Known) -> Iterator[Problem]:
    image, path = known.images[sample.image_path], sample.image_path
    if image.unreadable:
        yield error("image cannot be read", path, skips=path, details=image.unreadable)
    if sample.mask_path is None:
        return
    mask = known.masks[sample.mask_path]
    if mask.unreadable:
        yield error("mask cannot be read", sample.mask_path, skips=path, details=mask.unreadable)
        return
    sizes = [f"{facts.width}x{facts.height}" for facts in (mask, image)]
    if not image.unreadable and sizes[0] != sizes[1]:
        details = f"{sizes[0]} and {sizes[1]} pixels"
        yield error("mask and image differ in size", sample.mask_path, path, skips=path, details=details)
    if not mask.anomalous:
        yield warning("mask without a single anomalous pixel", sample.mask_path)


def _find_copies(parts: Splits, known: Known) -> Iterator[Problem]:
    """Test images with the content of a training image, whatever their files are called."""
    train: dict[str, list[Path]] = {}
    for sample in parts.get("train", []):
        digest = known.images[sample.image_path].digest
        if digest:
            train.setdefault(digest, []).append(sample.image_path)
    for sample in parts.get("test", []):
        for path in train.get(known.images[sample.image_path].digest, []):
            if sample.label:
                yield error("anomalous test image is a training image too", sample.image_path, path, skips=path)
            else:
                yield warning("good test image is a training image too", sample.image_path, path)
