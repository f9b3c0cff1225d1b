"""Look at every file of a data set, before anything is trained or scored on it, and tell all that is wrong at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datasets import DataSource
from datasets.base import SEVERAL_IMAGES, DataError, Sample
from datasets.levels import FAR_BELOW_WHITE, Levels, Range
from datasets.pairing import SPLITS
from datasets.problems import Problem, count, error, warning
from datasets.unused import warn_of_mixed
from utils.data.decoded_files import DecodedFiles
from utils.data.facts import Facts, FactStore
from utils.system.files import in_parallel

MOST_ANOMALOUS = 0.5  # share of an image's pixels, above which a mask may be inverted
MASK_ENDINGS = ("_mask", "_gt", "_label", "_ground_truth")  # of the names of masks that lie beside their images

Splits = dict[str, list[Sample]]  # "train" or "test" -> samples
KnownLevels = Mapping[str, Levels | None]  # of categories
Depth = tuple[str, float]  # kind of the values, and the white that is declared


class Checked(NamedTuple):
    """Samples of a data set, unreadable files and all, and what is wrong with them.

    levels: of each category, by its training images where these were checked; images: the facts of every image.
    """

    samples: dict[str, Splits]
    problems: list[Problem]
    levels: dict[str, Levels | None]
    images: Mapping[Path, Facts]


class Known(NamedTuple):
    """The facts of all files."""

    images: Mapping[Path, Facts]
    masks: Mapping[Path, Facts]


def check_source(
    source: DataSource, splits: Sequence[str] = SPLITS, *, workers: int, cache_dir: Path,
    levels: KnownLevels | None = None, decoded: DecodedFiles | None = None,
) -> Checked:
    """Check all files of the source's categories, opened in `workers` threads; those that the cache knows are not.

    levels: how files become grey levels, where it is decided already; otherwise the training images decide. decoded:
    keeps the files that are opened.

    Problems come category by category, those of the files in the samples' order; at the end those of what belongs to no
    category. One that cannot be listed is a problem too.
    """
    samples: dict[str, Splits] = {}
    problems: dict[str, list[Problem]] = {}
    for category in source.categories:
        samples[category], problems[category] = _list_category(source, category, splits)
    everything = [sample for parts in samples.values() for part in parts.values() for sample in part]
    known = _see_files(everything, workers, FactStore(cache_dir, decoded))
    decided = dict(levels or {})
    for category, parts in samples.items():
        training = _readable(parts.get("train", []), known.images)
        if category not in decided:
            decided[category] = Levels.of(facts.range for facts in training) if "train" in parts else None
        depths = Counter((facts.kind, facts.white) for facts in training)
        usual = max(depths, key=depths.get, default=None)
        for split, part in parts.items():
            wrong = [problem for sample in part for problem in _check_sample(sample, known)]
            wrong += [*_find_masks(part, known), *_check_levels(part, known, decided[category], usual)]
            problems[category] += [replace(problem, split=split) for problem in wrong]
        problems[category] += _find_copies(parts, known)
    listed = [problem for of_category in problems.values() for problem in of_category]
    return Checked(samples, listed + source.list_unused(), decided, known.images)


def levels_given(white: float | None, categories: Sequence[str]) -> dict[str, Levels]:
    """Levels 0..`white` for every category; none without it."""
    return {} if white is None else dict.fromkeys(categories, Levels.up_to(white))


def describe_depths(samples: Mapping[str, Splits], images: Mapping[Path, Facts]) -> Iterator[str]:
    """A line for each category and split: how many images, their depth, and the range of their values."""
    for category, parts in samples.items():
        for split, part in parts.items():
            groups: dict[tuple, list[Facts]] = {}
            for facts in _readable(part, images):
                groups.setdefault((facts.kind, facts.white, facts.depth), []).append(facts)
            described = [
                f"{count(len(group), 'image')} of "
                f"{Range(kind, min(one.low for one in group), max(one.high for one in group), white, depth)}"
                for (kind, white, depth), group in groups.items()
            ]
            yield f"{category}, {split}: {'; '.join(described) or 'no image that can be read'}"


def _readable(samples: Sequence[Sample], images: Mapping[Path, Facts]) -> list[Facts]:
    return [facts for sample in samples if not (facts := images[sample.image_path]).unreadable]


def _list_category(source: DataSource, category: str, splits: Sequence[str]) -> tuple[Splits, list[Problem]]:
    samples, problems = {}, []
    for split in splits:
        try:
            samples[split], of_split = source.list_samples(category, split)
            of_split = [replace(problem, split=split) for problem in of_split]
        except DataError as reason:
            of_split = [error("category cannot be used", source.root / category, details=str(reason))]
        problems += of_split
    everything = [sample for part in samples.values() for sample in part]
    return samples, problems + warn_of_mixed(source.root / category, everything)


def _see_files(samples: Sequence[Sample], workers: int, store: FactStore) -> Known:
    images = list(dict.fromkeys(sample.image_path for sample in samples))
    masks = list(dict.fromkeys(mask for s in samples for mask in (s.mask_path, s.blank_mask) if mask))
    jobs = [(store.of_image, path) for path in images] + [(store.of_mask, path) for path in masks]
    seen = in_parallel(lambda job: job[0](job[1]), jobs, workers)
    try:
        facts = list(tqdm(seen, total=len(jobs), desc="checking files", unit="file", leave=False))
    finally:
        store.save()  # when it is interrupted, too
    return Known(
        dict(zip(images, facts[: len(images)], strict=True)), dict(zip(masks, facts[len(images) :], strict=True))
    )


def _check_sample(sample: Sample, known: Known) -> Iterator[Problem]:
    image, path = known.images[sample.image_path], sample.image_path
    if image.unreadable:
        yield error("image cannot be read", path, skips=path, details=image.unreadable)
    if image.has_more:
        yield warning(SEVERAL_IMAGES, path)
    if sample.blank_mask and (why := known.masks[sample.blank_mask].unreadable):
        yield warning("mask of a good image cannot be read", sample.blank_mask, details=why)
    if sample.blank_mask and known.masks[sample.blank_mask].anomalous:
        yield error("good image has a mask with anomalous pixels", path, sample.blank_mask, skips=path)
    if sample.mask_path:
        yield from _check_mask(sample, known)


def _check_mask(sample: Sample, known: Known) -> Iterator[Problem]:
    image, path = known.images[sample.image_path], sample.image_path
    mask = known.masks[sample.mask_path]
    if mask.unreadable:
        yield error("mask cannot be read", sample.mask_path, skips=path, details=mask.unreadable)
        return
    sizes = [f"{facts.width}x{facts.height}" for facts in (mask, image)]
    fits_turned = image.width == image.height or (image.orientation > 4) == (mask.orientation > 4)
    if not image.unreadable and sizes[0] != sizes[1]:
        details = f"{sizes[0]} and {sizes[1]} pixels"
        yield error("mask and image differ in size", sample.mask_path, path, skips=path, details=details)
    elif mask.orientation != image.orientation and fits_turned:
        details = f"EXIF orientations {mask.orientation} and {image.orientation}"
        yield warning("mask and image are turned differently: are they alike?", sample.mask_path, path, details=details)
    if mask.has_more:
        yield warning(SEVERAL_IMAGES, sample.mask_path)
    if mask.grey_regions:
        details = f"{count(mask.grey_regions, 'region')} of at most half of the highest level"
        yield warning("mask has grey parts that do not count as anomalous", sample.mask_path, details=details)
    if not mask.anomalous:
        yield warning("mask without a single anomalous pixel", sample.mask_path)
    if mask.anomalous > MOST_ANOMALOUS:
        details = f"{100 * mask.anomalous:.0f} % of the pixels"
        yield warning("mask of more than half of the image: is it inverted?", sample.mask_path, details=details)


def _find_copies(parts: Splits, known: Known) -> Iterator[Problem]:
    """Images with the content of another, whatever their files are called."""
    first: dict[str, tuple[str, Sample]] = {}
    samples = [(split, sample) for split in SPLITS for sample in parts.get(split, [])]
    for split, sample in samples:
        digest = known.images[sample.image_path].digest
        first_split, other = first.setdefault(digest, (split, sample))
        if not digest or other is sample:
            continue
        paths = sample.image_path, other.image_path
        if split == "train":
            yield warning("training image is there twice", *paths)
        elif first_split == "train" and sample.label:
            yield error("anomalous test image is a training image too", *paths, skips=other.image_path)
        elif first_split == "train":
            yield warning("good test image is a training image too", *paths)
        elif sample.label != other.label:
            twice = error("test image is there twice, as good and as anomalous", *paths, skips=sample.image_path)
            yield replace(twice, split="test")
        else:
            yield warning("test image is there twice", *paths)


def _check_levels(
    part: Sequence[Sample], known: Known, levels: Levels | None, usual: Depth | None
) -> Iterator[Problem]:
    """Images whose values mean something else than those of the training images, or may do; `usual`: what most training
    images have."""
    for sample in part if levels else ():
        facts, path = known.images[sample.image_path], sample.image_path
        if facts.unreadable:
            continue
        try:
            doubt = levels.doubt(facts.range)
        except ValueError as reason:
            yield error("pixel values cannot be understood", path, skips=path, details=str(reason))
            continue
        if usual and (facts.kind, facts.white) != usual:
            yield warning("image of another depth than the training images", path, details=str(facts.range))
        elif doubt:
            yield warning(FAR_BELOW_WHITE, path, details=doubt)


def _find_masks(part: Sequence[Sample], known: Known) -> Iterator[Problem]:
    """Masks among the images."""
    names = {sample.name for sample in part}
    for sample in part:
        path, stem = sample.image_path, sample.image_path.stem
        ending = next((e for e in MASK_ENDINGS if stem.endswith(e)), "")
        if ending and f"{sample.defect}/{stem.removesuffix(ending)}" in names:
            yield error("mask is among the images", path, skips=path, details="it is named as that of another image")
        elif known.images[path].looks_like_mask:
            yield warning("image may be a mask: it is black and one other level", path)
