"""MVTec 3D-AD (Bergmann et al., VISAPP 2022), RGB images only, as it unpacks.

    <category>/train/good/rgb/*.png
    <category>/test/<defect>/rgb/*.png         "good" among the defects
    <category>/test/<defect>/gt/<stem>.png     the masks of good images must be all-zero
The validation split and the xyz images are not used. Categories of other names may have defects without masks.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample
from datasets.folders import find_place, list_folders
from datasets.mvtec import explain_foreign, is_published
from datasets.pairing import Layout, check_request, is_folder_of, order_categories, read_test, read_train, train_folders
from datasets.problems import Problem
from datasets.unused import find_outside

DEFECTS = {
    "bagel": "combined contamination crack hole",
    "cable_gland": "bent cut hole thread",
    "carrot": "combined contamination crack cut hole",
    "cookie": "combined contamination crack hole",
    "dowel": "bent combined contamination cut",
    "foam": "color combined contamination cut",
    "peach": "combined contamination cut hole",
    "potato": "combined contamination cut hole",
    "rope": "contamination cut open",
    "tire": "combined contamination cut hole",
}
CATEGORIES = tuple(DEFECTS)
LAYOUT = "<category>/train/good/rgb/*.png"
OWN = "parts of your own need no masks with the images up out of rgb/ and --dataset folder"
PLACES = Layout(images="rgb", masks="gt", ignored=("xyz", "validation"), own=OWN)


def matches(root: Path) -> bool:
    """Tell whether any folder in `root` has train/good/rgb."""
    return any(map(_has_rgb, list_folders(root)))


def find_categories(root: Path) -> list[str]:
    """The categories in `root`, in the data set's order."""
    return order_categories([folder.name for folder in list_folders(root) if is_category(folder)], CATEGORIES)


def is_category(folder: Path) -> bool:
    """Tell whether `folder` has train/good/rgb; one with a name of the data set's counts with a train or a test folder
    alone."""
    return is_published(folder, CATEGORIES) or _has_rgb(folder)


def explain_doubt(root: Path) -> str:
    """Why categories may be others than MVTec 3D-AD's of their names; "" if there is no doubt."""
    categories = [root / name for name in find_categories(root)]
    help_text = "move the images up out of rgb/, for --dataset folder"
    return explain_foreign(categories, DEFECTS, "MVTec 3D-AD", help_text)


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.

    Raises DataError for an unknown category or split, and a split without images.
    """
    check_request(root, category, split, is_folder_of(root, category, is_category), find_categories)
    if split == "train":
        return read_train(root / category, PLACES)
    return read_test(root / category, PLACES, masks_optional=category not in CATEGORIES)


def list_unused(root: Path) -> list[Problem]:
    """Warnings for images outside the categories."""
    return find_outside(root, find_categories(root), LAYOUT)


def _has_rgb(folder: Path) -> bool:
    return any(find_place(good, "rgb").is_dir() for good in train_folders(folder))
