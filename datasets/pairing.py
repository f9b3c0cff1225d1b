"""What the folder-based readers share: good images to train on, test images paired with masks by file name, and checks.

Folders are given as patterns below a category with {} for the defect, e.g. "test/{}/rgb". Samples come with the
problems that were seen: files without their partner are in no sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.base import DataError, Sample, find_images, list_folders, list_images
from datasets.problems import Problem, count, error, errors_among, warning

SPLITS = ("train", "test")
MOST_NAMED = 3  # images that an error names


def check_request(root: Path, category: str, split: str, found: Sequence[str]) -> None:
    """Raise DataError for a split that is neither "train" nor "test", or a category that is not among `found`."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; use one of: {', '.join(SPLITS)}")
    if category not in found:
        raise DataError(f"no category {category!r} in {root}; there are: {', '.join(found) or 'none'}")


def order_categories(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """`names` in the order of `known`, then the others sorted."""
    return [name for name in known if name in names] + sorted(set(names) - set(known))


def read_train(category: Path, images: str) -> tuple[list[Sample], list[Problem]]:
    """The training images of the folder `category` as good samples, sorted by name, and problems.

    Raises DataError if there are none.
    """
    folder = category / images.format("good")
    samples = [Sample(path, label=0, defect="good") for path in list_images(folder)]
    if not samples:
        raise DataError(f"no training images in {folder}; expected good images there (.png, .jpg, ...)")
    others = [category / images.format(other.name) for other in list_folders(category / "train")]
    unused = [other for other in (category / "train", *others) if other != folder]
    return check_unique(samples), warn_of_unused("training images that are not in good/ are never used", unused)


def read_test(
    category: Path, images: str, masks: str, masks_optional: bool = False
) -> tuple[list[Sample], list[Problem]]:
    """All test images of the folder `category`, sorted by defect and name, anomalous ones with their masks; problems.

    With `masks_optional`, a defect whose mask folder does not exist has no masks at all (mask_path None), a warning.
    Problems are an anomalous image without its mask, which is left out, a mask without its image, and images directly
    in the test folder. Raises DataError if there are no images.
    """
    defects = {folder.name for folder in list_folders(category / "test") + list_folders(category / "ground_truth")}
    problems = warn_of_unused("test images that are in no folder of a defect are never used", [category / "test"])
    samples = []
    for defect in sorted(defects):
        paths = list_images(category / images.format(defect))
        mask_folder = category / masks.format(defect)
        if defect == "good":
            samples += [Sample(path, label=0, defect=defect) for path in paths]
        elif masks_optional and not mask_folder.is_dir():
            samples += [Sample(path, label=1, defect=defect) for path in paths]
            problems += warn_of_no_masks(category / images.format(defect), paths)
        else:
            pairs, unpaired = pair_masks(paths, mask_folder)
            samples += [Sample(path, label=1, defect=defect, mask_path=mask) for path, mask in pairs.items()]
            problems += unpaired
    if not samples and not errors_among(problems):
        raise DataError(f"no test images in {category}; expected some in {category / images.format('<defect>')}")
    return check_unique(samples), problems


def pair_masks(images: Sequence[Path], mask_folder: Path) -> tuple[dict[Path, Path], list[Problem]]:
    """Pair each image with the mask named `<stem>_mask` or `<stem>` (any image suffix) in `mask_folder`.

    Returns image -> mask, in the order of `images`, and an error for each image or mask that has no partner.
    """
    masks = {path.stem: path for path in list_images(mask_folder)}
    pairs, problems = {}, []
    for image in images:
        stem = next((stem for stem in (f"{image.stem}_mask", image.stem) if stem in masks), None)
        if stem is None:
            expected = f"no {image.stem}_mask.png or {image.stem}.png in {mask_folder}"
            problems.append(error("image has no mask", image, skips=image, details=expected))
        else:
            pairs[image] = masks.pop(stem)
    problems += [error("mask has no image", mask, skips=mask) for mask in masks.values()]
    return pairs, problems


def warn_of_unused(message: str, folders: Sequence[Path]) -> list[Problem]:
    """A warning for each of the folders that holds images."""
    counted = {folder: find_images(folder) for folder in folders}
    return [warning(message, folder, details=count(len(found), "image")) for folder, found in counted.items() if found]


def warn_of_no_masks(folder: Path, images: Sequence[Path]) -> list[Problem]:
    message = "defect without a folder of masks: its category gets an image AUROC only"
    return [warning(message, folder, details=count(len(images), "image"))] if images else []


def check_unique(samples: list[Sample]) -> list[Sample]:
    """The samples as they are. Raises DataError if two of them share a name: maps and masks are stored by it."""
    counts = Counter(sample.name for sample in samples)
    twice = [f"{sample.image_path} ({sample.name})" for sample in samples if counts[sample.name] > 1]
    if twice:
        more = f"; and {len(twice) - MOST_NAMED} more" if len(twice) > MOST_NAMED else ""
        raise DataError(
            "images of one split share a name; rename them or list each one once "
            f"({len(twice)} in all): {'; '.join(twice[:MOST_NAMED])}{more}"
        )
    return samples
