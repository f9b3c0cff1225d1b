"""MVTec AD 2 (Heckler-Kram et al., 2025) and MVTec LOCO AD (Bergmann et al., IJCV 2022), as they unpack.

AD 2's private test images have no public labels and are not used. Good images of the validation split are for
thresholds (`scripts/calibrate.py --images <category>/validation/good`); AD 2's set that of SegF1.
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import DataError, Sample
from datasets.folder import FolderReader
from datasets.folders import find_place, list_images
from datasets.pairing import Layout, read_test
from datasets.problems import Problem, error, warning
from datasets.saturation import DEFECTS_CONFIG, read_saturations


class MVTecAD2(FolderReader):
    """Reader of MVTec AD 2, whose test images are those of the public test split.

        <category>/{train,validation}/good/*.png
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

    def list_validation(self, category: Path) -> list[Path]:
        """The good images of the validation split; none without it."""
        return list_images(find_place(category, "validation", "good"))


class MVTecLOCO(FolderReader):
    """Reader of MVTec LOCO AD: logical and structural anomalies. All masks of an image count together.

        <category>/train/good/*.png
        <category>/test/{good,logical_anomalies,structural_anomalies}/*.png
        <category>/ground_truth/{logical_anomalies,structural_anomalies}/<stem>/*.png
        <category>/defects_config.json              for the saturated PRO alone
    """

    CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
    DEFECTS = ("logical_anomalies", "structural_anomalies")
    LAYOUT = "<category>/train/good/*.png beside <category>/test/logical_anomalies or structural_anomalies"
    PLACES = Layout(ignored=("validation",), several=True)

    def is_category(self, folder: Path) -> bool:
        has_test = any(find_place(folder, "test", defect).is_dir() for defect in self.DEFECTS)
        return has_test and super().is_category(folder)

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        samples, problems = read_test(category, self.PLACES)
        path = category / DEFECTS_CONFIG
        if not path.exists():
            return samples, [*problems, warning(f"category without {DEFECTS_CONFIG} gets no saturated PRO", category)]
        try:
            read_saturations(path)
        except DataError as reason:
            unread = "saturation thresholds cannot be read: unpack the file again"
            problems = [*problems, error(unread, path, skips=path, details=str(reason))]
        return samples, problems
