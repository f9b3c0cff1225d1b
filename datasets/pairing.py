"""Common parts of the folder-based readers: good images to train on, test images paired with masks by name, checks.

Folders are found whatever the case of their names, and those of good images by any usual name of good. Samples come
with the problems that were seen: files without their partner are in no sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.base import DataError, Sample
from datasets.folders import find_place, list_folders, list_images, look_into
from datasets.good import DEFECT, GOOD, UNCLEAR, kind_of
from datasets.names import printable
from datasets.problems import Problem, count, error, errors_among, warning
from datasets.unused import ELSEWHERE, find_unused, raise_empty

SPLITS = ("train", "test")
NO_MASK, MASK_WITHOUT_IMAGE = "image has no mask", "mask has no image"
WITHOUT_MASKS = "defect without a folder of masks: its category gets an image AUROC only"
MOST_NAMED = 3  # images that an error names
ASK = "is this good or a defect? Rename it to good, or to what the defect is"


class Layout(NamedTuple):
    """Places of a category's images and masks: folders of this name in train/good and <test>/<defect>, or else directly
    there and in <truth>/<defect>. Folders of `ignored` names are not used. `own` helps where masks are missed.

    several: an image has a folder of masks, called as itself, which count together.
    """

    images: str = ""
    masks: str = ""
    ignored: tuple[str, ...] = ()
    own: str = "parts of your own need no masks with --dataset folder"
    test: tuple[str, ...] = ("test",)
    truth: tuple[str, ...] = ("ground_truth",)
    several: bool = False

    def images_in(self, kind: Path) -> Path:
        return find_place(kind, self.images) if self.images else kind

    def masks_of(self, category: Path, kind: str) -> Path:
        if self.masks:
            return find_place(category, *self.test, kind, self.masks)
        return find_place(category, *self.truth, kind)

    def list_masks(self, folder: Path) -> list[Path]:
        """The masks in a folder of `masks_of`: images, or folders of them."""
        return list_folders(folder) if self.several else list_images(folder)


def check_request(root: Path, category: str, split: str, known: bool, find: Callable[[Path], list[str]]) -> None:
    """Raise DataError for a split that is neither "train" nor "test", or a category that is not `known`, with those
    that `find` finds in `root`."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; use one of: {', '.join(SPLITS)}")
    if not known:
        there = ", ".join(map(printable, find(root))) or "none"
        raise DataError(f"no category {category!r} in {root}; there are: {there}")


def order_categories(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """`names` in the order of `known`, then the others sorted."""
    return [name for name in known if name in names] + sorted(set(names) - set(known))


def train_folders(category: Path) -> list[Path]:
    """The folders of good images to train on; without any, those that may be meant so."""
    folders = list_folders(find_place(category, "train"))
    good = [folder for folder in folders if kind_of(folder.name) == GOOD]
    return good or [folder for folder in folders if kind_of(folder.name) == UNCLEAR]


def read_train(category: Path, layout: Layout) -> tuple[list[Sample], list[Problem]]:
    """The training images of the folder `category` as good samples, sorted by folder and name, and problems.

    Raises DataError if there are no training images.
    """
    train = find_place(category, "train")
    kinds = {folder: kind_of(folder.name) for folder in list_folders(train)}
    good = [layout.images_in(folder) for folder, kind in kinds.items() if kind == GOOD]
    samples = [Sample(path, label=0, defect="good") for folder in good for path in list_images(folder)]
    unclear = [folder for folder, kind in kinds.items() if kind == UNCLEAR]
    asked, places = ask_about(unclear, layout), [*good, *map(layout.images_in, unclear)]
    message = "training images that are not in good/ are never used"
    problems = asked + find_unused(train, places, message, layout.ignored)
    tests = [find_place(category, *places) for places in (layout.test, layout.truth)]
    problems += find_unused(category, places, ELSEWHERE, layout.ignored, skip=[train, *tests])
    if not samples:
        expected = good[0] if good else layout.images_in(train / "good")
        raise_empty(f"no training images in {printable(expected)}; expected good images there (.png, .jpg, ...)",
                    problems)
    return check_unique(samples), problems


def read_test(category: Path, layout: Layout, masks_optional: bool = False) -> tuple[list[Sample], list[Problem]]:
    """All test images of the folder `category`, sorted by defect and name, anomalous ones with their masks; problems.

    With `masks_optional`, a defect whose mask folder does not exist has no masks at all (mask_path None), a warning.
    Raises DataError if there are no images.
    """
    test, truth = find_place(category, *layout.test), find_place(category, *layout.truth)
    kinds = {folder: kind_of(folder.name) for folder in list_folders(test) if folder != truth}
    masked = [path.name for path in list_folders(truth)]
    kinds |= {test / name: kind_of(name) for name in masked if not find_place(test, name).is_dir()}
    unclear = [folder for folder, kind in kinds.items() if kind == UNCLEAR]
    images = {folder: layout.images_in(folder) for folder in kinds}
    masks = {folder: layout.masks_of(category, folder.name) for folder in kinds}
    blank = [masks[folder] for folder, kind in kinds.items() if kind == GOOD]
    problems, samples = ask_about(unclear, layout), []
    for folder in sorted(kinds, key=lambda folder: "good" if kinds[folder] == GOOD else folder.name):
        if kinds[folder] == GOOD:
            samples += _good_samples(list_images(images[folder]), blank)
        elif kinds[folder] == DEFECT:
            hint = None if masks_optional else layout.own
            paired, wrong = _defect_samples(folder.name, images[folder], masks[folder], hint, layout)
            samples += paired
            problems += wrong
    message = "test images that are in no folder of a defect are never used"
    used = [*images.values(), *masks.values(), *(sample.mask_path for sample in samples if layout.several)]
    used = [folder for folder in used if folder]
    problems += find_unused(test, used, message, layout.ignored, skip=[truth])
    problems += find_unused(truth, used, ELSEWHERE, layout.ignored)
    if not samples and not errors_among(problems):
        expected = layout.images_in(test / "<defect>")
        raise_empty(f"no test images in {printable(category)}; expected some in {printable(expected)}", problems)
    return check_unique(samples), problems


def ask_about(folders: Sequence[Path], layout: Layout) -> list[Problem]:
    """One error for all folders with images whose names may mean good, or may not."""
    asked = [folder for folder in folders if look_into(layout.images_in(folder)).images]
    return [error(ASK, *asked)] if asked else []


def check_unique(samples: list[Sample]) -> list[Sample]:
    """The samples as they are. Raises DataError if two of them share a name: maps and masks are stored by it."""
    counts = Counter(sample.name for sample in samples)
    twice = [f"{printable(sample.image_path)} ({printable(sample.name)})" for sample in samples
             if counts[sample.name] > 1]
    if twice:
        more = f"; and {len(twice) - MOST_NAMED} more" if len(twice) > MOST_NAMED else ""
        raise DataError(
            "images of one split share a name; rename them or list each one once "
            f"({len(twice)} in all): {'; '.join(twice[:MOST_NAMED])}{more}"
        )
    return samples


def _good_samples(images: Sequence[Path], mask_folders: Sequence[Path]) -> list[Sample]:
    """Good samples; a mask of one, which most data sets do not have, must be blank."""
    masks = {path.stem: path for folder in mask_folders for path in list_images(folder)}
    return [Sample(path, label=0, defect="good", blank_mask=masks.get(_mask_stem(path, masks))) for path in images]


def _defect_samples(
    defect: str, image_folder: Path, mask_folder: Path, hint: str | None, layout: Layout
) -> tuple[list[Sample], list[Problem]]:
    """Pair each image with the mask named `<stem>_mask` or `<stem>` (any image suffix); errors for what has no partner.

    hint: what helps where there is no folder of masks; None if there need be none.
    """
    images = list_images(image_folder)
    if hint is None and not mask_folder.is_dir():
        details = f"{count(len(images), 'image')}; if they are good, call it good"
        problems = [warning(WITHOUT_MASKS, image_folder, details=details)] if images else []
        return [Sample(path, label=1, defect=defect) for path in images], problems
    masks = {path.stem: path for path in layout.list_masks(mask_folder)}
    hint = "" if mask_folder.is_dir() else f"; {hint}"
    samples, problems = [], []
    for image in images:
        stem = _mask_stem(image, masks)
        if stem is None:
            expected = f"no {image.stem}_mask.png or {image.stem}.png in {mask_folder}{hint}"
            problems.append(error(NO_MASK, image, skips=image, details=expected))
        else:
            samples.append(Sample(image, label=1, defect=defect, mask_path=masks.pop(stem)))
    return samples, problems + [error(MASK_WITHOUT_IMAGE, mask, skips=mask) for mask in masks.values()]


def _mask_stem(image: Path, masks: dict[str, Path]) -> str | None:
    return next((stem for stem in (f"{image.stem}_mask", image.stem) if stem in masks), None)
