"""Any data set in MVTec-like folders, with whatever categories and defects there are.

    <category>/train/good/*.png|jpg|...
    <category>/test/<type>/*                      "good" or a defect; the whole test folder may be absent
    <category>/ground_truth/<type>/<stem>[_mask].*    a type without such a folder has no masks (image AUROC only)
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample
from datasets.folders import find_place, list_folders
from datasets.pairing import Layout, check_request, order_categories, read_test, read_train, train_folders
from datasets.problems import Problem
from datasets.unused import find_outside


class FolderReader:
    """Reader of a data set in folders; those of other layouts are subclasses."""

    CATEGORIES: tuple[str, ...] = ()  # whatever is there
    LAYOUT = "<category>/train/good/*.png|jpg|..."
    PLACES = Layout()

    def matches(self, root: Path) -> bool:
        """Tell whether `root` has this layout: here, whether any folder in it is a category."""
        return any(map(self.is_category, list_folders(root)))

    def explain_doubt(self, root: Path) -> str:
        """Why `root` may be something else though it matches, and the flag for that; "" if there is no doubt."""
        return ""

    def is_category(self, folder: Path) -> bool:
        """Tell whether `folder` has train/good with images at this layout's place: in good/rgb or directly there."""
        in_rgb = self.PLACES.images == "rgb"
        return any(find_place(good, "rgb").is_dir() == in_rgb for good in train_folders(folder))

    def find_categories(self, root: Path) -> list[str]:
        """The categories in `root`, the data set's own in its order, then the others sorted."""
        names = [folder.name for folder in list_folders(root) if self.is_category(folder)]
        return order_categories(names, self.CATEGORIES)

    def list_samples(self, root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
        """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.
        Raises DataError for an unknown category or split, and a split without images."""
        named = [folder for folder in list_folders(root) if folder.name == category]  # the others may be many
        check_request(root, category, split, any(map(self.is_category, named)), self.find_categories)
        if split == "train":
            return read_train(root / category, self.PLACES)
        return self.read_test(root / category)

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        """The test images of a category; none where there is no test folder."""
        if not any(find_place(category, *place).is_dir() for place in (self.PLACES.test, self.PLACES.truth)):
            return [], []
        return read_test(category, self.PLACES, masks_optional=True)

    def list_unused(self, root: Path) -> list[Problem]:
        """Warnings for images outside the categories."""
        return find_outside(root, self.find_categories(root), self.LAYOUT)
