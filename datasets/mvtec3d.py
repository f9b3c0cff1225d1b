"""MVTec 3D-AD (Bergmann et al., VISAPP 2022), RGB images only, as it unpacks.

    <category>/train/good/rgb/*.png
    <category>/test/<defect>/rgb/*.png         "good" among the defects
    <category>/test/<defect>/gt/<stem>.png     the all-zero masks of good images are not read
The validation split and the xyz images are not used.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample, list_folders
from datasets.pairing import check_request, order_categories, read_test, read_train
from datasets.problems import Problem

CATEGORIES = ("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire")
LAYOUT = "<category>/train/good/rgb/*.png"


def matches(root: Path) -> bool:
    """Whether any folder in `root` has train/good/rgb."""
    return any((folder / "train" / "good" / "rgb").is_dir() for folder in list_folders(root))


def find_categories(root: Path) -> list[str]:
    """The categories in `root`, in the data set's order; a known name counts with a train or a test folder alone."""

    def is_category(folder: Path) -> bool:
        known = folder.name in CATEGORIES and ((folder / "train").is_dir() or (folder / "test").is_dir())
        return known or (folder / "train" / "good" / "rgb").is_dir()

    return order_categories([folder.name for folder in list_folders(root) if is_category(folder)], CATEGORIES)


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.

    Raises DataError for an unknown category or split, and a split without images.
    """
    check_request(root, category, split, find_categories(root))
    if split == "train":
        return read_train(root / category, images="train/{}/rgb")
    return read_test(root / category, images="test/{}/rgb", masks="test/{}/gt")
