"""Lists of VisA's images: meta.json or, without it, split_csv/1cls.csv.

split_csv/1cls.csv comes with the data set: columns object, split, label (normal | anomaly), image, mask.
meta.json is what many repositories of the field write from it (scripts/visa_meta.py does):

    {"train"|"test": {category: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}]}}

img_path and mask_path are relative to the root, mask_path "" where there is none, anomaly 0 or 1. specie_name, the kind
of the defect, is written "" and ignored on reading.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from datasets.base import DataError
from datasets.pairing import SPLITS
from datasets.plain_json import read_json, read_text

META = Path("meta.json")
CSV = Path("split_csv", "1cls.csv")
CSV_COLUMNS = ("object", "split", "label", "image", "mask")
MAX_NAME, MAX_PATH = 255, 2048  # bytes, within what every file system takes
CSV_LABELS = {"normal": 0, "anomaly": 1}


@dataclass(frozen=True)
class Entry:
    """Listed image. Paths are relative to the data set's root, with forward slashes."""

    category: str
    split: str  # "train" or "test"
    label: int  # 1 = anomalous
    image: str
    mask: str  # "" for most normal images; that of one must be blank


def read_entries(root: Path) -> list[Entry]:
    """All entries of the list, in its order; files need not be on disk. Raises DataError if there is none, or for the
    first line that is wrong."""
    path = list_path(root)
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


def list_path(root: Path) -> Path:
    """The list that is used. Raises DataError if there is none."""
    for path in (root / META, root / CSV):
        if path.is_file():
            return path
    raise DataError(f"neither {META} nor {CSV} in {root}; the csv file is part of VisA's download")


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
    """Tell whether a file can be called so."""
    return "\0" not in text and len(os.fsencode(text)) <= MAX_NAME


def _shown(value: object) -> str:
    """Shorten a value for a message, whose other end must be seen too."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
