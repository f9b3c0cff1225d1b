"""Files of a data set that are never used: images at places that its layout does not have, files that are no images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path

from datasets.base import DataError, Sample
from datasets.folders import Contents, look_into, walk
from datasets.formats import NO_IMAGES, holds_image, why_unread
from datasets.names import printable
from datasets.problems import Problem, count, error, warning

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
NESTED = "images in a folder within a folder of images are never used"
BROKEN = "link that leads nowhere: images that it should lead to are not used"
LINKED = "linked folder at a place that the layout does not have is not followed, its images are never used"
ELSEWHERE = "images outside train/good, test/<defect> and ground_truth/<defect> are never used"
OUTSIDE = "images in a folder that is no category are never used"
MOST_FOLDERS = 1000  # looked at in a folder that is no category
EXAMPLES = 3  # files named


def find_unused(
    top: Path, used: Collection[Path], message: str, ignored: Collection[str] = (), skip: Collection[Path] = ()
) -> list[Problem]:
    """Warnings for what is not used in the folder `top` and below, where the images in the folders `used` are.

    message: of images that are in none of them; folders with names that are `ignored`, and those to `skip`, are not
    looked at. A folder that cannot be looked into is an error.
    """
    needed = {folder for place in used for folder in (place, *place.parents)}

    def is_known(folder: Path) -> bool:
        return folder.name not in ignored and folder not in skip

    def enter(folder: Path) -> bool:
        return is_known(folder) and (folder in needed or not folder.is_symlink())

    problems = []
    for folder, contents in walk(top, enter):
        if isinstance(contents, DataError):
            problems.append(error("folder cannot be used", folder, details=str(contents)))
            continue
        if folder in used:
            problems += warn_of_others(folder, contents.others)
        else:
            problems += _warn_of_broken(contents)
            above = next((place for place in folder.parents if place in used), None)
            problems += _warn_of_images(folder, contents, NESTED if above else message, above)
        strays = [path for path in contents.folders if is_known(path) and not enter(path)]
        problems += [warning(LINKED, path, details=f"it leads to {printable(path.resolve())}") for path in strays]
    return problems


def find_outside(root: Path, categories: Collection[str], layout: str) -> list[Problem]:
    """Warnings for images in a data set's root, and in its folders that are no categories."""
    contents = look_into(root)
    problems = _warn_of_broken(contents) + _warn_of_images(root, contents, OUTSIDE, details=f"looked for {layout}")
    for folder in contents.folders:
        if folder.name in categories:
            continue
        seen = islice(walk(folder, lambda path: not path.is_symlink()), MOST_FOLDERS)
        images = sum(len(_images_of(contents)) for _, contents in seen if not isinstance(contents, DataError))
        if images:
            problems.append(warning(OUTSIDE, folder, details=f"{count(images, 'image')}; looked for {layout}"))
    return problems


def find_unlisted(root: Path, listed: Collection[Path], list_name: str, layout: str) -> list[Problem]:
    """Warnings for images of a data set that are not among those `listed`, in the folders of these and in others."""
    message, problems = f"images that {list_name} does not list are never used", []
    categories = {path.relative_to(root).parts[0] for path in listed}
    for folder, contents in (seen for name in sorted(categories) for seen in walk(root / name)):
        if isinstance(contents, DataError):
            problems.append(error("folder cannot be used", folder, details=str(contents)))
        elif unlisted := [path for path in _images_of(contents) if path not in listed]:
            problems.append(warning(message, folder, details=count(len(unlisted), "image")))
    return problems + find_outside(root, categories, layout)


def warn_of_mixed(category: Path, samples: Iterable[Sample]) -> list[Problem]:
    """A warning where some images of a category are JPEG and others are not: their compression tells them apart."""
    suffixes = Counter(sample.image_path.suffix.lower() for sample in samples)
    lossy = [suffix for suffix in suffixes if suffix in JPEG_SUFFIXES]
    if not lossy or len(lossy) == len(suffixes):
        return []
    details = ", ".join(f"{number} {suffix}" for suffix, number in sorted(suffixes.items()))
    return [warning("JPEG images beside others: what JPEG does to an image may pass for a defect", category,
                    details=details)]


def raise_empty(message: str, problems: Sequence[Problem]) -> None:
    """Raise DataError for a split without images, with what was found instead."""
    shown = [str(problem) for problem in problems[:EXAMPLES]]
    more = [f"and {len(problems) - EXAMPLES} more"] if len(problems) > EXAMPLES else []
    raise DataError("; ".join([message, *shown, *more]))


def _warn_of_broken(contents: Contents) -> list[Problem]:
    """Warnings for links that may have led to folders, e.g. on a disk that is not there now."""
    broken = [path for path in contents.others if path.is_symlink() and not path.suffix and not path.exists()]
    return [warning(BROKEN, path, details=f"it leads to {printable(os.readlink(path))}") for path in broken]


def _images_of(contents: Contents) -> list[Path]:
    """Images, and those of formats that are not read."""
    return [path for path in contents.images if not path.is_dir()] + [
        path for path in contents.others if path.suffix.lower() not in NO_IMAGES and why_unread(path)
    ]


def _warn_of_images(
    folder: Path, contents: Contents, message: str, above: Path | None = None, details: str = ""
) -> list[Problem]:
    images = _images_of(contents)
    if not images:
        return []
    help_text = f"move them up into {printable(above)}" if above else details
    shown = "; ".join(filter(None, [count(len(images), "image"), help_text]))
    return [warning(message, folder, details=shown)]


def warn_of_others(folder: Path, files: Sequence[Path]) -> list[Problem]:
    """A warning for each reason for which files among images are not used."""
    reasons: dict[str, list[Path]] = {}
    for path in files:
        reasons.setdefault(_why_not_used(path), []).append(path)
    warnings = []
    for reason, found in reasons.items():
        names = ", ".join(printable(path.name) for path in found[:EXAMPLES])
        details = f"{count(len(found), 'file')}: {names}{', ...' if len(found) > EXAMPLES else ''}"
        warnings.append(warning(reason, folder, details=details))
    return warnings


def _why_not_used(path: Path) -> str:
    if path.suffix.lower() in NO_IMAGES:
        return "files that are no images are never used"
    if reason := why_unread(path):
        return reason
    if holds_image(path):
        return "images whose names do not end as those of images are never used; rename them (.png, .jpg, ...)"
    return "files of unknown kind are never used"
