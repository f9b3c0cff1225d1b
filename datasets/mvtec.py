"""MVTec AD (Bergmann et al., CVPR 2019), as it unpacks.

    <category>/train/good/*.png
    <category>/test/<defect>/*.png                      "good" among the defects
    <category>/ground_truth/<defect>/<stem>_mask.png    <stem>.png is accepted too
"""

from __future__ import annotations

from pathlib import Path

from datasets import folder as plain
from datasets.base import Sample, list_folders
from datasets.pairing import check_request, order_categories, read_test, read_train
from datasets.problems import Problem

CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)
LAYOUT = "<category>/train/good/*.png, every category named as in MVTec AD"


def matches(root: Path) -> bool:
    """Whether `root` has folders with train/good, all named as MVTec's categories, and a test set: good images of one's
    own screws alone are no MVTec AD."""
    names = plain.find_categories(root)
    return set(names) <= set(CATEGORIES) and any((root / name / "test").is_dir() for name in names)


def find_categories(root: Path) -> list[str]:
    """The categories in `root`, in the data set's order; an MVTec name counts with a train or a test folder alone."""

    def is_category(folder: Path) -> bool:
        known = folder.name in CATEGORIES and ((folder / "train").is_dir() or (folder / "test").is_dir())
        return known or plain.is_category(folder)

    return order_categories([folder.name for folder in list_folders(root) if is_category(folder)], CATEGORIES)


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.

    Raises DataError for an unknown category or split, and a split without images.
    """
    check_request(root, category, split, find_categories(root))
    if split == "train":
        return read_train(root / category, images="train/{}")
    return read_test(root / category, images="test/{}", masks="ground_truth/{}")
