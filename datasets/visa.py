"""VisA (Zou et al., ECCV 2022): the images are those of a list, which datasets/visa_list.py reads.

Every anomalous sample has the defect "anomaly", every normal one "good".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.base import DataError, Sample
from datasets.pairing import check_request, check_unique, order_categories
from datasets.problems import Problem, count, error, warning
from datasets.unused import find_unlisted
from datasets.visa_list import CSV, META, Entry, list_path, read_csv, read_entries, read_meta


class VisA:
    """Reader of VisA."""

    CATEGORIES = (
        "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
        "pipe_fryum",
    )
    LAYOUT = "meta.json or split_csv/1cls.csv with the images that it lists"

    def matches(self, root: Path) -> bool:
        """Tell whether `root` has meta.json or split_csv/1cls.csv."""
        return (root / CSV).is_file() or (root / META).is_file()

    def compare_with(self, root: Path, other: str) -> tuple[bool | None, str]:
        """Tell whether a list in `root` is what to go by where folders of the layout `other` lie beside it, and why.

        False where it cannot be read or none of its images is there, and for a meta.json that names no category of
        VisA: other data sets have one too. True where it lists the images in these folders. None: it may be either.
        """
        path = list_path(root)
        name = path.relative_to(root).as_posix()
        try:
            entries = read_entries(root)
        except DataError as reason:
            return False, str(reason)
        if not _on_disk(root, entries):
            return False, f"none of the images that {name} lists is there"
        if path.name == META.name and not any(entry.category in self.CATEGORIES for entry in entries):
            return False, f"{name} names no category of VisA"
        if any(Path(entry.image).parts[1:2] == ("train",) for entry in entries):
            return True, f"{name} lists the images in them"
        return None, f"{name} lists images that are there, and beside it are folders of the layout {other!r}"

    def explain_doubt(self, root: Path) -> str:
        """Why meta.json may not be the list that is meant where the csv file is there too; "" if both list the same."""
        if not (root / META).is_file() or not (root / CSV).is_file():
            return ""
        try:
            by_meta, by_csv = read_meta(root / META), read_csv(root / CSV)
        except DataError as reason:
            return f"{META} is used, and {CSV} beside it is not: {reason}"
        if {_without_blank(entry) for entry in by_meta} == {_without_blank(entry) for entry in by_csv}:
            return ""
        others = f"{CSV} lists other images, splits, labels or masks"
        return f"{META} is used, though {others}; move away the one that is wrong"

    def find_categories(self, root: Path) -> list[str]:
        """The listed categories of which any image folder is on disk, in the data set's order; none without a list.
        Raises DataError if the list cannot be read, or none of its images is there."""
        if not (root / META).is_file() and not (root / CSV).is_file():
            return []
        categories = _on_disk(root, read_entries(root))
        if not categories:
            raise DataError(f"{list_path(root)} lists images of which none is in {root}; unpack VisA's images there")
        return categories

    def list_samples(self, root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
        """The samples of one split, normal ones first, sorted by file name, and problems with its files.

        Anomalous training entries are left out, a warning. Entries whose files are not on disk, and anomalous ones
        without a mask, are in no sample. Raises DataError for an unknown category or split, a list that cannot be read,
        and a split without images.
        """
        entries = read_entries(root)
        categories = _on_disk(root, entries)
        check_request(root, category, split, category in categories, lambda _: categories)
        entries = [e for e in entries if (e.category, e.split) == (category, split)]
        used = [e for e in entries if split == "test" or e.label == 0]
        if not used:
            raise DataError(f"{list_path(root)} lists no {split} images for {category}")
        samples, problems = [], []
        if len(used) < len(entries):
            details = f"{count(len(entries) - len(used), 'image')} of {category}"
            problems.append(warning("anomalous training images are never used", list_path(root), details=details))
        for entry in sorted(used, key=lambda e: (e.label, e.image)):
            wrong = _missing_files(root, entry)
            problems += wrong
            samples += [] if wrong else [_sample(root, entry)]
        return check_unique(samples), problems

    def list_unused(self, root: Path) -> list[Problem]:
        """Warnings for images that the list does not name, beside those that it does and elsewhere."""
        files = [file for entry in read_entries(root) for file in (entry.image, entry.mask) if file]
        return find_unlisted(root, {root / file for file in files}, list_path(root).name, self.LAYOUT)


def _on_disk(root: Path, entries: Sequence[Entry]) -> list[str]:
    folders = {(entry.category, (root / entry.image).parent) for entry in entries}
    return order_categories([category for category, folder in folders if folder.is_dir()], VisA.CATEGORIES)


def _missing_files(root: Path, entry: Entry) -> list[Problem]:
    image = root / entry.image
    problems = []
    for what, file in {"image": entry.image, "mask": entry.mask if entry.label else ""}.items():
        path = root / file
        if file and not path.is_file():
            problems.append(error(f"listed {what} is not on disk", path, skips=image))
        elif file and not path.resolve().is_relative_to(root.resolve()):  # the root itself may be a link
            problems.append(error(f"listed {what} is a link that leads out of the data set", path, skips=image))
    if entry.label == 1 and not entry.mask:
        details = f"none in {list_path(root)}"
        problems.append(error("image has no mask", image, skips=image, details=details))
    return problems


def _without_blank(entry: Entry) -> Entry:
    """Drop the mask of a normal image, which lists may leave out."""
    return entry if entry.label else replace(entry, mask="")


def _sample(root: Path, entry: Entry) -> Sample:
    if entry.label == 0:
        mask = root / entry.mask if entry.mask else None
        is_there = mask and mask.is_file() and mask.resolve().is_relative_to(root.resolve())
        return Sample(root / entry.image, label=0, defect="good", blank_mask=mask if is_there else None)
    return Sample(root / entry.image, label=1, defect="anomaly", mask_path=root / entry.mask)
