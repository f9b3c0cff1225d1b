"""MVTec AD (Bergmann et al., CVPR 2019) and, at the end, MVTec 3D-AD, as they unpack.

    <category>/train/good/*.png
    <category>/test/<defect>/*.png                      "good" among the defects
    <category>/ground_truth/<defect>/<stem>_mask.png    <stem>.png is accepted too
"""

from __future__ import annotations

from pathlib import Path

from datasets.base import Sample
from datasets.folder import FolderReader
from datasets.folders import find_place, list_folders
from datasets.good import DEFECT, kind_of
from datasets.names import printable
from datasets.pairing import Layout, read_test
from datasets.problems import Problem


class MVTec(FolderReader):
    """Reader of MVTec AD, and of further categories beside its own."""

    NAME = "MVTec AD"
    DEFECTS = {
        "bottle": "broken_large broken_small contamination",
        "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable missing_wire "
        "poke_insulation",
        "capsule": "crack faulty_imprint poke scratch squeeze",
        "carpet": "color cut hole metal_contamination thread",
        "grid": "bent broken glue metal_contamination thread",
        "hazelnut": "crack cut hole print",
        "leather": "color cut fold glue poke",
        "metal_nut": "bent color flip scratch",
        "pill": "color combined contamination crack faulty_imprint pill_type scratch",
        "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
        "tile": "crack glue_strip gray_stroke oil rough",
        "toothbrush": "defective",
        "transistor": "bent_lead cut_lead damaged_case misplaced",
        "wood": "color combined hole liquid scratch",
        "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
    }
    CATEGORIES = tuple(DEFECTS)
    LAYOUT = "<category>/train/good/*.png, every category named as in MVTec AD"
    HELP = "give --dataset folder"

    def matches(self, root: Path) -> bool:
        """Tell whether `root` has folders with train/good, all named as MVTec's categories, and a test set, and none of
        them is clearly something else: good images of one's own screws alone are no MVTec AD, nor are those with tests
        of other defects that have no masks."""
        return self.is_named_so(root) and not any(map(self._is_other, _plain_categories(root)))

    def is_named_so(self, root: Path) -> bool:
        """Tell whether all folders with train/good are named as MVTec's categories, and there is a test set."""
        folders = _plain_categories(root)
        named_so = bool(folders) and all(folder.name in self.CATEGORIES for folder in folders)
        return named_so and any(find_place(folder, "test").is_dir() for folder in folders)

    def explain_doubt(self, root: Path) -> str:
        """Note that published categories have defects which those have not: the first and how many more; "" if none."""
        known = [root / name for name in self.find_categories(root) if name in self.DEFECTS]
        foreign = [f"{category.name}/{defect}" for category in known for defect in self._foreign_defects(category)]
        if not foreign:
            return ""
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        return (
            f"taken for {self.NAME} by the names of its categories, though {self.NAME} has no "
            f"{printable(foreign[0])}{more}; if these are parts of your own, {self.HELP}"
        )

    def is_category(self, folder: Path) -> bool:
        """Tell whether `folder` has good images to train on; one with a published name counts with a train or a test
        folder alone."""
        published = folder.name in self.CATEGORIES
        has_split = published and any(find_place(folder, split).is_dir() for split in ("train", "test"))
        return has_split or super().is_category(folder)

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        return read_test(category, self.PLACES)

    def _foreign_defects(self, category: Path) -> list[str]:
        """The defects of a category that are not published for it."""
        published = self.DEFECTS.get(category.name, "").split()
        return [defect for defect in _defects(category) if defect not in published]

    def _is_other(self, category: Path) -> bool:
        """Tell whether a category that is named as one of MVTec AD is clearly none: its good images are called
        otherwise, or all its defects are, and one of them has no masks."""
        kinds = [folder.name for split in ("train", "test") for folder in list_folders(category / split)]
        if any(kind_of(name) != DEFECT and name != "good" for name in kinds):
            return True
        defects = self._foreign_defects(category)
        unmasked = [defect for defect in defects if not find_place(category, "ground_truth", defect).is_dir()]
        return bool(unmasked) and defects == _defects(category)


class MVTec3D(MVTec):
    """Reader of the RGB images of MVTec 3D-AD (Bergmann et al., VISAPP 2022), as it unpacks, and of further categories.

        <category>/train/good/rgb/*.png
        <category>/test/<defect>/rgb/*.png         "good" among the defects
        <category>/test/<defect>/gt/<stem>.png     the masks of good images must be all-zero
    The validation split and the xyz images are not used. Categories of other names may have defects without masks.
    """

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
        return any(FolderReader.is_category(self, folder) for folder in list_folders(root))

    def read_test(self, category: Path) -> tuple[list[Sample], list[Problem]]:
        return read_test(category, self.PLACES, masks_optional=category.name not in self.CATEGORIES)


def _plain_categories(root: Path) -> list[Path]:
    return [root / name for name in FolderReader().find_categories(root)]


def _defects(category: Path) -> list[str]:
    return [folder.name for folder in list_folders(find_place(category, "test")) if kind_of(folder.name) == DEFECT]
