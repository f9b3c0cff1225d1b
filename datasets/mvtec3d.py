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
from datasets.mvtec import MVTec
from datasets.pairing import Layout, read_test, train_folders
from datasets.problems import Problem


class MVTec3D(MVTec):
    """Reader of MVTec 3D-AD, and of further categories beside its own."""

    NAME = "MVTec 3D-AD"
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
    PLACES = Layout(
        images="rgb", masks="gt", ignored=("xyz", "validation"),
        own="parts of your own need no masks with the images up out of rgb/ and --dataset folder",
    )
    HELP = "move the images up out of rgb/, for --dataset folder"

    def matches(self, root: Path) -> bool:
        """Tell whether any folder in `root` has train/good/rgb."""
        return any(map(self.has_good_images, list_folders(root)))

    def has_good_images(self, folder: Path) -> bool:
        return any(find_place(good, "rgb").is_dir() for good in train_folders(folder))

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        return read_test(category, self.PLACES, masks_optional=category.name not in self.CATEGORIES)
