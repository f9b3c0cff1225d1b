"""MVTec AD 2 (Heckler-Kram et al., 2025) and MVTec LOCO AD (Bergmann et al., IJCV 2022), as they unpack.

Neither the validation images nor AD 2's private test images, which have no public labels, are used: good images of the
validation split are for thresholds (`scripts/calibrate.py --images <category>/validation/good`).
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample
from datasets.folder import FolderReader
from datasets.folders import find_place
from datasets.pairing import Layout, read_test
from datasets.problems import Problem


class MVTecAD2(FolderReader):
    """Reader of MVTec AD 2, whose test images are those of the public test split.

        <category>/train/good/*.png
        <category>/test_public/{good,bad}/*.png
        <category>/test_public/ground_truth/bad/<stem>_mask.png
    """

    CATEGORIES = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")
    LAYOUT = "<category>/train/good/*.png beside <category>/test_public"
    PLACES = Layout(
        test=("test_public",), truth=("test_public", "ground_truth"),
        ignored=("validation", "test_private", "test_private_mixed"),
    )

    def is_category(self, folder: Path) -> bool:
        return find_place(folder, *self.PLACES.test).is_dir() and super().is_category(folder)

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        return read_test(category, self.PLACES)


class MVTecLOCO(FolderReader):
    """Reader of MVTec LOCO AD: logical and structural anomalies. All masks of an image count together.

        <category>/train/good/*.png
        <category>/test/{good,logical_anomalies,structural_anomalies}/*.png
        <category>/ground_truth/{logical_anomalies,structural_anomalies}/<stem>/*.png
    """

    CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
    DEFECTS = ("logical_anomalies", "structural_anomalies")
    LAYOUT = "<category>/train/good/*.png beside <category>/test/logical_anomalies or structural_anomalies"
    PLACES = Layout(ignored=("validation",), several=True)

    def is_category(self, folder: Path) -> bool:
        has_test = any(find_place(folder, "test", defect).is_dir() for defect in self.DEFECTS)
        return has_test and super().is_category(folder)

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        return read_test(category, self.PLACES)
