"""Photographs of one's own in folders of any names: good ones, told by the name of a folder, and others that are not.

    normal/*.jpg  chip/*.jpg  dirt/*.jpg             one category, named after the folder that holds them
    caps/ok/*.jpg  caps/nok/*.jpg  lids/ok/*.jpg     a category for each folder that holds good ones
    train/good/*.jpg  test/good/*.jpg  test/crack/*.jpg
    *.jpg                                            good ones alone, without any folder

Folders may lie in these, by day or by lot. Where there are others than good ones, and no folder of good ones is called
train or test, a fifth of the good ones is kept for the test. Masks lie in a folder of MASK_FOLDERS, in folders named as
the images' or in none, or beside the images; they are called as the images are, with or without `_mask` (beside them
with it), or are Labelme's JSON files. COCO's JSON files lie in the data root, in its folder `annotations`, or with the
images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.base import DataError, Sample
from datasets.drawn_masks import SUFFIX, masks_in_coco
from datasets.folders import find_place, list_images, look_into
from datasets.good import GOOD, kind_of, simplify
from datasets.own_folders import NO_NAMES, TEST_FOLDERS, TRAIN_FOLDERS, Names, Place, list_names
from datasets.pairing import MASK_WITHOUT_IMAGE, NO_MASK, WITHOUT_MASKS, check_request, check_unique
from datasets.problems import Problem, count, error, warning
from datasets.unused import warn_of_others

OWN = "own"  # name of this layout
MASK_ENDING, ANNOTATIONS = "_mask", "annotations"
MOST_GUESSED = 1000  # folders that are looked into where nobody says that this layout is meant
TEST_SHARE = 5  # one in so many good photographs is kept for the test


@dataclass(frozen=True)
class OwnReader:
    """Reader of photographs in folders of any names."""

    names: Names = Names()
    CATEGORIES = ()
    LAYOUT = "folders of photographs, one of them called good, normal, ok, ...; or good photographs without a folder"

    def matches(self, root: Path) -> bool:
        """Tell whether a folder is named as good photographs are, or there are photographs and no folders."""
        return bool(self.names.divide(root, MOST_GUESSED)[0])

    def explain_doubt(self, root: Path) -> str:
        """The folders that are taken for those of good photographs and of others; "" where they are given."""
        if self.names.good:
            return ""
        places, _ = self.names.divide(root)
        good, bad = ([p.path for p in places if p.is_good is good and not p.is_mask] for good in (True, False))
        others = f", for others those in {list_names(root, bad)}" if bad else ""
        kept = f"; one in {TEST_SHARE} of the good ones is kept for the test" if bad and _needs_test(places) else ""
        return f"taken for good photographs: those in {list_names(root, good)}{others} (--good and --bad say it){kept}"

    def find_categories(self, root: Path) -> list[str]:
        """The categories, sorted. Raises DataError where it must be said which photographs are good, and for names that
        no folder has."""
        places, _ = self.names.divide(root)
        return sorted({_category_name(root, place.category) for place in places})

    def list_samples(self, root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
        """The samples of a split, good ones first, each sorted by folder and name, and problems with its files. Raises
        DataError for an unknown category or split, and where there is nothing to train on."""
        places = [place for place in self.names.divide(root)[0] if _category_name(root, place.category) == category]
        check_request(root, category, split, bool(places), self.find_categories)
        train, test = _split_good(places)
        if split == "train":
            if not train:
                raise DataError(f"no photographs of {category} in {root} are left to train on; they are all for tests")
            return check_unique(train), _others_among(place for place in places if place.is_good)
        masks, unpaired = _pair_masks(root, places)
        bad, problems = _read_bad(places, masks)
        problems += [error(MASK_WITHOUT_IMAGE, path, skips=path) for path in unpaired]
        problems += _others_among(place for place in places if not place.is_good)
        good = [replace(sample, blank_mask=masks.get(sample.image_path)) for sample in test]
        return check_unique(good + bad), problems

    def list_unused(self, root: Path) -> list[Problem]:
        """Problems with folders that hold images and belong to no category."""
        return self.names.divide(root)[1]

def _category_name(root: Path, head: tuple[str, ...]) -> str:
    """The names of the folders that hold a category, or that of the data root, or of the nearest above that is one."""
    if head:
        return "-".join(head)
    above = [folder.name for folder in (root.resolve(), *root.resolve().parents)]
    return next((name for name in above if name and kind_of(name) != GOOD and simplify(name) not in NO_NAMES), "own")


def _others_among(places: Iterable[Place]) -> list[Problem]:
    """Warnings for files among images that are none, or none that is read; those of annotations are used."""
    files = [(place.path, look_into(place.path).others) for place in places]
    return [
        problem for folder, others in files
        for problem in warn_of_others(folder, [path for path in others if path.suffix.lower() != SUFFIX])
    ]


def _needs_test(places: Sequence[Place]) -> bool:
    """Tell whether some good photographs must be kept for the test: no folder of them is for it, or for training."""
    good = [place for place in places if place.is_good]
    has_others = any(not place.is_good and not place.is_mask for place in places)
    return has_others and not any(place.words & (TRAIN_FOLDERS | TEST_FOLDERS) for place in good)


def _split_good(places: Sequence[Place]) -> tuple[list[Sample], list[Sample]]:
    """The good photographs to train on, and those for the test."""
    good = [place for place in places if place.is_good]
    kinds = {place.kind for place in good}
    drawn, train, test = _needs_test(places), [], []
    for place in good:
        folder = "/".join(place.inner if len(kinds) == 1 else (place.kind, *place.inner))
        for path in _photographs(place):
            sample = Sample(path, 0, "good", folder=folder)
            is_test = _is_drawn(sample.name) if drawn else bool(place.words & TEST_FOLDERS)
            (test if is_test else train).append(sample)
    return train, test


def _is_drawn(name: str) -> bool:
    """Tell whether a good photograph is one of those for the test: by its name, so that new ones change no other."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big") % TEST_SHARE == 0


def _photographs(place: Place) -> Iterator[Path]:
    """The images of a folder without the masks beside them."""
    images = list_images(place.path)
    masks = {f"{path.stem}{MASK_ENDING}" for path in images}
    return (path for path in images if path.stem not in masks)


def _pair_masks(root: Path, places: Sequence[Place]) -> tuple[dict[Path, Path], list[Path]]:
    """The mask of each image that has one, and masks without an image. A mask lies in folders named as the image's, in
    one named as its defect, in none, or beside the image; or it is drawn in a COCO file."""
    images = {path: place for place in places if not place.is_mask for path in _photographs(place)}
    stems = {path.stem for path in images}
    masks: dict[tuple[tuple[str, ...], str], Path] = {}
    for place in places:
        drawn = [path for path in look_into(place.path).others if path.suffix.lower() == SUFFIX and path.stem in stems]
        paths = [path for path in list_images(place.path) if path not in images] + drawn
        masks |= {(place.key, path.stem.removesuffix(MASK_ENDING)): path for path in paths}
    paired, used = {}, set()
    for image, place in images.items():
        names = (place.key, place.key[:1], ())
        key = next(((name, image.stem) for name in names if (name, image.stem) in masks), None)
        if key:
            paired[image] = masks[key]
            used.add(key)
    known = set(masks.values())
    others = [path for path in _json_files(root, places) if path not in known]
    try:
        paired = masks_in_coco(others, [*images]) | paired
    except ValueError as reason:
        raise DataError(str(reason)) from reason
    return paired, [path for key, path in masks.items() if key not in used]


def _json_files(root: Path, places: Sequence[Place]) -> list[Path]:
    """JSON files in the data root, in its folder `annotations`, and in the folders that lead to photographs."""
    leading = {folder for place in places for folder in (place.path, *place.path.parents)}
    folders = {find_place(root, ANNOTATIONS)} | {folder for folder in leading if folder.is_relative_to(root)}
    files = [path for folder in sorted(folders) for path in look_into(folder).others]
    return [path for path in files if path.suffix.lower() == SUFFIX]


def _read_bad(places: Sequence[Place], masks: Mapping[Path, Path]) -> tuple[list[Sample], list[Problem]]:
    """Others than good photographs, with their masks. Errors for those without, where others of their defect have one;
    a warning for a defect without masks."""
    samples, problems = [], []
    bad = sorted((place for place in places if not place.is_good and not place.is_mask), key=lambda place: place.key)
    for kind in dict.fromkeys(place.kind for place in bad):
        found = [
            Sample(path, 1, kind, masks.get(path), folder="/".join(place.inner))
            for place in bad if place.kind == kind for path in _photographs(place)
        ]
        has_masks = any(sample.mask_path for sample in found)
        if not has_masks:
            folder = next(place.path for place in bad if place.kind == kind)
            problems.append(warning(WITHOUT_MASKS, folder, details=count(len(found), "image")))
        without = [sample.image_path for sample in found if has_masks and not sample.mask_path]
        problems += [error(NO_MASK, path, skips=path) for path in without]
        samples += [sample for sample in found if sample.mask_path or not has_masks]
    return samples, problems
