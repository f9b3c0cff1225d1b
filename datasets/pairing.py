"""What the folder-based readers share: good images to train on, test images paired with masks by file name, and checks.

Folders are given as patterns below a category with {} for the defect, e.g. "test/{}/rgb".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.base import DataError, Sample, list_folders, list_images

SPLITS = ("train", "test")
SHOWN_PROBLEMS = 3  # how many of many problems an error spells out


def check_request(root: Path, category: str, split: str, found: Sequence[str]) -> None:
    """Raise DataError for a split that is neither "train" nor "test", or a category that is not among `found`."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; use one of: {', '.join(SPLITS)}")
    if category not in found:
        raise DataError(f"no category {category!r} in {root}; there are: {', '.join(found) or 'none'}")


def order_categories(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """`names` in the order of `known`, then the others sorted."""
    return [name for name in known if name in names] + sorted(set(names) - set(known))


def read_train(folder: Path) -> list[Sample]:
    """The images in `folder` as good samples, sorted by name. Raises DataError if there are none."""
    samples = [Sample(path, label=0, defect="good") for path in list_images(folder)]
    if not samples:
        raise DataError(f"no training images in {folder}; expected good images there (.png, .jpg, ...)")
    return check_unique(samples)


def read_test(category: Path, images: str, masks: str, masks_optional: bool = False) -> list[Sample]:
    """All test images of the folder `category`, sorted by defect and name, anomalous ones with their masks.

    With `masks_optional`, a defect whose mask folder does not exist has no masks at all (mask_path None).
    Raises DataError for no images, an anomalous image without its mask, and a mask without its image.
    """
    defects = {folder.name for folder in list_folders(category / "test") + list_folders(category / "ground_truth")}
    samples, problems = [], []
    for defect in sorted(defects):
        paths = list_images(category / images.format(defect))
        mask_folder = category / masks.format(defect)
        if defect == "good":
            samples += [Sample(path, label=0, defect=defect) for path in paths]
        elif masks_optional and not mask_folder.is_dir():
            samples += [Sample(path, label=1, defect=defect) for path in paths]
        else:
            pairs, unpaired = pair_masks(paths, mask_folder)
            samples += [Sample(path, label=1, defect=defect, mask_path=mask) for path, mask in pairs.items()]
            problems += unpaired
    raise_problems(f"the masks of {category} do not fit its test images", problems)
    if not samples:
        raise DataError(f"no test images in {category}; expected some in {category / images.format('<defect>')}")
    return check_unique(samples)


def pair_masks(images: Sequence[Path], mask_folder: Path) -> tuple[dict[Path, Path], list[str]]:
    """Pair each image with the mask named `<stem>_mask` or `<stem>` (any image suffix) in `mask_folder`.

    Returns image -> mask, in the order of `images`, and a line for each image or mask that has no partner.
    """
    masks = {path.stem: path for path in list_images(mask_folder)}
    pairs, problems = {}, []
    for image in images:
        stem = next((stem for stem in (f"{image.stem}_mask", image.stem) if stem in masks), None)
        if stem is None:
            problems.append(f"image {image} has no mask {mask_folder / image.stem}_mask.png (or {image.stem}.png)")
        else:
            pairs[image] = masks.pop(stem)
    problems += [f"mask {mask} has no image" for mask in masks.values()]
    return pairs, problems


def check_unique(samples: list[Sample]) -> list[Sample]:
    """The samples as they are. Raises DataError if two of them share a name: maps and masks are stored by it."""
    counts = Counter(sample.name for sample in samples)
    twice = [f"{sample.image_path} ({sample.name})" for sample in samples if counts[sample.name] > 1]
    raise_problems("images of one split share a name; rename them or list each one once", twice)
    return samples


def raise_problems(summary: str, problems: Sequence[str]) -> None:
    """Raise one DataError that counts the problems and spells out the first few; do nothing if there are none."""
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(f"{summary} ({len(problems)} in all): {'; '.join(problems[:SHOWN_PROBLEMS])}{more}")
