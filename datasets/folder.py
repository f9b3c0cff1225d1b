"""Any data set in MVTec-like folders, with whatever categories and defects there are.

    <category>/train/good/*.png|jpg|...
    <category>/test/<type>/*                      "good" or a defect; the whole test folder may be absent
    <category>/ground_truth/<type>/<stem>[_mask].*    a type without such a folder has no masks (image AUROC only)
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample
from datasets.folders import find_place, list_folders
from datasets.pairing import Layout, check_request, is_folder_of, read_test, read_train, train_folders
from datasets.problems import Problem
from datasets.unused import find_outside

CATEGORIES: tuple[str, ...] = ()  # whatever is there
LAYOUT = "<category>/train/good/*.png|jpg|..."
PLACES = Layout()


def is_category(folder: Path) -> bool:
    """Tell whether `folder` has train/good with the images directly in it (MVTec 3D-AD has them in train/good/rgb)."""
    return any(not find_place(good, "rgb").is_dir() for good in train_folders(folder))


def matches(root: Path) -> bool:
    """Tell whether any folder in `root` is a category."""
    return any(is_category(folder) for folder in list_folders(root))


def find_categories(root: Path) -> list[str]:
    """The categories in `root`, sorted."""
    return [folder.name for folder in list_folders(root) if is_category(folder)]


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.

    Without a test folder the test split is empty. Raises DataError for an unknown category or split, no training
    images, and a test folder without images.
    """
    check_request(root, category, split, is_folder_of(root, category, is_category), find_categories)
    folder = root / category
    if split == "train":
        return read_train(folder, PLACES)
    if not any(find_place(folder, name).is_dir() for name in ("test", "ground_truth")):
        return [], []
    return read_test(folder, PLACES, masks_optional=True)


def list_unused(root: Path) -> list[Problem]:
    """Warnings for images outside the categories."""
    return find_outside(root, find_categories(root), LAYOUT)
