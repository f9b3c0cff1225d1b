"""MVTec AD (Bergmann et al., CVPR 2019), as it unpacks.

    <category>/train/good/*.png
    <category>/test/<defect>/*.png                      "good" among the defects
    <category>/ground_truth/<defect>/<stem>_mask.png    <stem>.png is accepted too
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from datasets import folder as plain
from datasets.base import Sample
from datasets.folders import find_place, list_folders
from datasets.good import DEFECT, kind_of
from datasets.names import printable
from datasets.pairing import check_request, is_folder_of, order_categories, read_test, read_train
from datasets.problems import Problem
from datasets.unused import find_outside

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


def matches(root: Path) -> bool:
    """Tell whether `root` has folders with train/good, all named as MVTec's categories, and a test set, and none of
    them is clearly something else: good images of one's own screws alone are no MVTec AD, nor are those with tests of
    other defects that have no masks."""
    return is_named_so(root) and not any(_is_other(root / name) for name in plain.find_categories(root))


def is_named_so(root: Path) -> bool:
    """Tell whether all folders with train/good are named as MVTec's categories, and there is a test set."""
    folders = [root / name for name in plain.find_categories(root)]
    named_so = bool(folders) and all(folder.name in CATEGORIES for folder in folders)
    return named_so and any(find_place(folder, "test").is_dir() for folder in folders)


def explain_doubt(root: Path) -> str:
    """Why `root` may be no MVTec AD though it is taken for it, and the flag for that; "" if there is no doubt."""
    categories = [root / name for name in find_categories(root)]
    return explain_foreign(categories, DEFECTS, "MVTec AD", "give --dataset folder")


def explain_foreign(categories: Sequence[Path], published: Mapping[str, str], name: str, help_text: str) -> str:
    """Note that categories named as published ones of data set `name` have defects which those have not, the first of
    them and how many more; "" if none has."""
    known = [category for category in categories if category.name in published]
    foreign = [f"{c.name}/{defect}" for c in known for defect in foreign_defects(c, published)]
    if not foreign:
        return ""
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    return (
        f"taken for {name} by the names of its categories, though {name} has no {printable(foreign[0])}{more}; if "
        f"these are parts of your own, {help_text}"
    )


def foreign_defects(category: Path, published: Mapping[str, str] = DEFECTS) -> list[str]:
    """The defects of a category that are not published for it."""
    return [defect for defect in _defects(category) if defect not in published.get(category.name, "").split()]


def _defects(category: Path) -> list[str]:
    return [folder.name for folder in list_folders(find_place(category, "test")) if kind_of(folder.name) == DEFECT]


def _is_other(category: Path) -> bool:
    """Tell whether a category that is named as one of MVTec AD is clearly none: its good images are called otherwise,
    or all its defects are, and one of them has no masks."""
    splits = [category / split for split in ("train", "test")]
    if any(kind_of(folder.name) != DEFECT and folder.name != "good" for split in splits
           for folder in list_folders(split)):
        return True
    defects = foreign_defects(category)
    unmasked = [defect for defect in defects if not find_place(category, "ground_truth", defect).is_dir()]
    return bool(unmasked) and defects == _defects(category)


def find_categories(root: Path) -> list[str]:
    """The categories in `root`, in the data set's order."""
    return order_categories([folder.name for folder in list_folders(root) if is_category(folder)], CATEGORIES)


def is_category(folder: Path) -> bool:
    """Tell whether `folder` has train/good; one with a name of MVTec's counts with a train or a test folder alone."""
    return is_published(folder, CATEGORIES) or plain.is_category(folder)


def is_published(folder: Path, names: Collection[str]) -> bool:
    """Tell whether a folder has one of the names of published categories, and a train or a test folder."""
    return folder.name in names and any(find_place(folder, split).is_dir() for split in ("train", "test"))


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split ("train": good images only), sorted by defect and name, and problems with its files.

    Raises DataError for an unknown category or split, and a split without images.
    """
    check_request(root, category, split, is_folder_of(root, category, is_category), find_categories)
    if split == "train":
        return read_train(root / category, plain.PLACES)
    return read_test(root / category, plain.PLACES)


def list_unused(root: Path) -> list[Problem]:
    """Warnings for images outside the categories."""
    return find_outside(root, find_categories(root), LAYOUT)
