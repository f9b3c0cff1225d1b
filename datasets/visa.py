"""VisA (Zou et al., ECCV 2022): the images are listed in meta.json or, without it, in split_csv/1cls.csv.

split_csv/1cls.csv comes with the data set: columns object, split, label (normal | anomaly), image, mask.
meta.json is what many repositories of the field write from it (scripts/visa_meta.py does):

    {"train"|"test": {category: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}]}}

img_path and mask_path are relative to the root, mask_path "" where there is none, anomaly 0 or 1. specie_name names
the kind of the defect; VisA has only one, so the usual file leaves it "". It is written so, and ignored on reading:
every anomalous sample has the defect "anomaly", every normal one "good".
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from datasets.base import DataError, Sample
from datasets.pairing import SPLITS, check_request, check_unique, order_categories
from datasets.plain_json import read_json, read_text
from datasets.problems import Problem, count, error, warning
from datasets.unused import find_unlisted

CATEGORIES = (
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
)
LAYOUT = "meta.json or split_csv/1cls.csv with the images that it lists"
META = Path("meta.json")
CSV = Path("split_csv", "1cls.csv")
CSV_COLUMNS = ("object", "split", "label", "image", "mask")
MAX_NAME, MAX_PATH = 255, 2048  # bytes, within what every file system takes
CSV_LABELS = {"normal": 0, "anomaly": 1}


@dataclass(frozen=True)
class Entry:
    """One listed image. Paths are relative to the data set's root, with forward slashes."""

    category: str
    split: str  # "train" or "test"
    label: int  # 1 = anomalous
    image: str
    mask: str  # "" for most normal images; that of one must be blank


def matches(root: Path) -> bool:
    """Whether `root` has meta.json or split_csv/1cls.csv."""
    return (root / CSV).is_file() or (root / META).is_file()


def compare_with(root: Path, other: str) -> tuple[bool | None, str]:
    """Whether a list in `root` is what to go by where folders of the layout `other` lie beside it, None where that
    cannot be decided, and why.

    It is not where it cannot be read or none of its images is there, nor is a meta.json that names no category of VisA:
    other data sets have one too. It is where it lists the images in these folders.
    """
    path = _list_path(root)
    shown = path.relative_to(root).as_posix()
    try:
        entries = read_entries(root)
    except DataError as reason:
        return False, str(reason)
    if not _on_disk(root, entries):
        return False, f"none of the images that {shown} lists is there"
    if path.name == META.name and not any(entry.category in CATEGORIES for entry in entries):
        return False, f"{shown} names no category of VisA"
    if any(Path(entry.image).parts[1:2] == ("train",) for entry in entries):
        return True, f"{shown} lists the images in them"
    return None, f"{shown} lists images that are there, and beside it are folders of the layout {other!r}"


def explain_doubt(root: Path) -> str:
    """Why meta.json may not be the list that is meant where the csv file is there too; "" if both list the same."""
    if not (root / META).is_file() or not (root / CSV).is_file():
        return ""
    try:
        by_meta, by_csv = read_meta(root / META), read_csv(root / CSV)
    except DataError as reason:
        return f"{META} is used, and {CSV} beside it is not: {reason}"
    if {_without_blank(entry) for entry in by_meta} == {_without_blank(entry) for entry in by_csv}:
        return ""
    return f"{META} is used, though {CSV} lists other images, splits, labels or masks; move away the one that is wrong"


def find_categories(root: Path) -> list[str]:
    """The listed categories of which any image folder is on disk, in the data set's order; none without a list.

    Raises DataError if the list cannot be read, or if there is a list and none of its images.
    """
    if not (root / META).is_file() and not (root / CSV).is_file():
        return []
    found = _on_disk(root, read_entries(root))
    if not found:
        raise DataError(f"{_list_path(root)} lists images of which none is in {root}; unpack VisA's images there")
    return found


def list_samples(root: Path, category: str, split: str) -> tuple[list[Sample], list[Problem]]:
    """The samples of one split, normal ones first, sorted by file name, and problems with its files.

    Anomalous training entries are left out, a warning. Entries whose files are not on disk, and anomalous ones without
    a mask, are in no sample. Raises DataError for an unknown category or split, a list that cannot be read, and a split
    without images.
    """
    entries = read_entries(root)
    found = _on_disk(root, entries)
    check_request(root, category, split, category in found, lambda _: found)
    entries = [e for e in entries if (e.category, e.split) == (category, split)]
    used = [e for e in entries if split == "test" or e.label == 0]
    if not used:
        raise DataError(f"{_list_path(root)} lists no {split} images for {category}")
    samples, problems = [], []
    if len(used) < len(entries):
        details = f"{count(len(entries) - len(used), 'image')} of {category}"
        problems.append(warning("anomalous training images are never used", _list_path(root), details=details))
    for entry in sorted(used, key=lambda e: (e.label, e.image)):
        wrong = _missing_files(root, entry)
        problems += wrong
        samples += [] if wrong else [_sample(root, entry)]
    return check_unique(samples), problems


def list_unused(root: Path) -> list[Problem]:
    """Warnings for images that the list does not name, beside those that it does and elsewhere."""
    files = [file for entry in read_entries(root) for file in (entry.image, entry.mask) if file]
    return find_unlisted(root, {root / file for file in files}, _list_path(root).name, LAYOUT)


def read_entries(root: Path) -> list[Entry]:
    """All entries of meta.json or, without it, of split_csv/1cls.csv, in the order of the file.

    Raises DataError if there is neither, or for the first line that is wrong; files need not be on disk.
    """
    path = _list_path(root)
    return read_meta(path) if path.name == META.name else read_csv(path)


def read_csv(path: Path) -> list[Entry]:
    """The entries of a split file. Raises DataError naming the file and the line that is wrong."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}; expected {','.join(CSV_COLUMNS)}")
        return [_csv_entry(f"{path}, line {reader.line_num}", row) for row in reader]
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; it is part of VisA's download") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a split file: {error}") from error


def read_meta(path: Path) -> list[Entry]:
    """The entries of a meta.json. Raises DataError naming the file and the entry that is wrong."""
    try:
        meta = read_json(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(meta, dict) or not all(isinstance(meta.get(split), dict) for split in SPLITS):
        raise DataError(f'{path} is not a VisA list; expected {{"train"|"test": {{category: [...]}}}}')
    entries = []
    for split in SPLITS:
        for category, items in meta[split].items():
            if not isinstance(items, list):
                raise DataError(f"{path}: {split}/{category} is not a list")
            where = f"{path}, {split}/{category[:80]}"
            entries += [_meta_entry(f"{where}[{i}]", category, split, item) for i, item in enumerate(items)]
    return entries


def build_meta(entries: Sequence[Entry]) -> dict[str, dict[str, list[dict]]]:
    """The entries as the content of meta.json; every category is in both splits."""
    meta = {split: {entry.category: [] for entry in entries} for split in SPLITS}
    for entry in entries:
        mask = entry.mask if entry.label else ""
        item = {"img_path": entry.image, "mask_path": mask, "cls_name": entry.category}
        meta[entry.split][entry.category].append(item | {"specie_name": "", "anomaly": entry.label})
    return meta


def _list_path(root: Path) -> Path:
    for path in (root / META, root / CSV):
        if path.is_file():
            return path
    raise DataError(f"neither {META} nor {CSV} in {root}; the csv file is part of VisA's download")


def _on_disk(root: Path, entries: Sequence[Entry]) -> list[str]:
    folders = {(entry.category, (root / entry.image).parent) for entry in entries}
    return order_categories([category for category, folder in folders if folder.is_dir()], CATEGORIES)


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
        details = f"none in {_list_path(root)}"
        problems.append(error("image has no mask", image, skips=image, details=details))
    return problems


def _without_blank(entry: Entry) -> Entry:
    """Without the mask of a normal image, which lists may leave out."""
    return entry if entry.label else replace(entry, mask="")


def _sample(root: Path, entry: Entry) -> Sample:
    if entry.label == 0:
        mask = root / entry.mask if entry.mask else None
        is_there = mask and mask.is_file() and mask.resolve().is_relative_to(root.resolve())
        return Sample(root / entry.image, label=0, defect="good", blank_mask=mask if is_there else None)
    return Sample(root / entry.image, label=1, defect="anomaly", mask_path=root / entry.mask)


def _csv_entry(where: str, row: dict[str, str | None]) -> Entry:
    if row["label"] not in CSV_LABELS:
        raise DataError(f"{where}: label {_shown(row['label'])} is not one of: {', '.join(CSV_LABELS)}")
    return _entry(where, row["object"], row["split"], CSV_LABELS[row["label"]], row["image"], row["mask"] or "")


def _meta_entry(where: str, category: str, split: str, item: object) -> Entry:
    if not isinstance(item, dict) or not {"img_path", "mask_path", "anomaly"} <= item.keys():
        raise DataError(f"{where} is not an entry with img_path, mask_path and anomaly")
    if item["anomaly"] not in (0, 1):
        raise DataError(f"{where}: anomaly {_shown(item['anomaly'])} is not 0 or 1")
    return _entry(where, category, split, int(item["anomaly"]), item["img_path"], item["mask_path"] or "")


def _entry(where: str, category: str | None, split: str | None, label: int, image: object, mask: object) -> Entry:
    if split not in SPLITS:
        raise DataError(f"{where}: split {_shown(split)} is not one of: {', '.join(SPLITS)}")
    alone = category and category != ".." and PureWindowsPath(category).parts == (category,)
    if not alone or not category.isprintable() or not _is_name(category):
        raise DataError(f"{where}: {_shown(category)} is not a category name")  # run folders are named by it
    return Entry(category, split, label, _relative(where, image), _relative(where, mask) if mask else "")


def _relative(where: str, text: object) -> str:
    path = PureWindowsPath(text) if isinstance(text, str) else PureWindowsPath()  # takes both kinds of slashes
    if path.anchor or ".." in path.parts:
        raise DataError(f"{where}: path {_shown(text)} leads out of the data set; paths are relative to its root")
    if not path.parts or not all(map(_is_name, path.parts)) or len(os.fsencode(text)) > MAX_PATH:
        raise DataError(f"{where}: {_shown(text)} is not a path")
    return path.as_posix()


def _is_name(text: str) -> bool:
    """Whether a file can be called so."""
    return "\0" not in text and len(os.fsencode(text)) <= MAX_NAME


def _shown(value: object) -> str:
    """For a message, whose other end must be seen too."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
