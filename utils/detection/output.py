"""Targets of predictions: the file of scores and the heat maps, over nothing that this program did not write."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from datasets.marks import NO_PHOTOGRAPHS, mark_of
from datasets.names import csv_line
from utils.detection.files import Write, Writer
from utils.detection.pictures import Kind
from utils.detection.records import COLUMNS, Record
from utils.system.errors import UsageError
from utils.system.files import naming
from utils.system.own_files import PREDICTIONS, bears, begins_as, refuse_foreign

LONGEST = 255  # bytes of a name that nearly every file system takes
HASH = 12  # of a name that had to be changed, in hexadecimal digits


def leave_out_own(paths: Sequence[Path], arguments: Iterable[str]) -> tuple[list[Path], int]:
    """The images without heat maps, anomaly maps and masks that our programs wrote, and how many these were; what is
    named itself stays, and is an error of its own."""
    named = {os.path.abspath(os.path.expanduser(argument)) for argument in arguments}
    kept = [path for path in paths if os.path.abspath(path) in named or mark_of(path) not in NO_PHOTOGRAPHS]
    if not kept:
        raise UsageError(f"{paths[0]} is a {mark_of(paths[0])} that this program wrote, and there are no other images")
    return kept, len(paths) - len(kept)


def picture_targets(
    paths: Sequence[Path], folders: Mapping[Kind, Path | None], below: Path | None = None
) -> dict[Kind, dict[Path, Path]]:
    """The files of each image's pictures, in the folders that are given: its path below the folder common to all, or
    `below`, with its suffix, then the picture's."""
    absolute = [os.path.abspath(path) for path in paths]
    common = below or os.path.commonpath([os.path.dirname(path) for path in absolute])
    names = [os.path.relpath(path, common) for path in absolute]
    return {
        kind: dict(zip(paths, map_paths(folder, [f"{name}{kind.suffix}" for name in names]), strict=True))
        for kind, folder in folders.items() if folder
    }


def refuse_other_targets(
    images: Sequence[Path], output: Path | None, pictures: Mapping[Kind, Mapping[Path, Path]]
) -> None:
    """Raise UsageError if predictions would be written over an image, or a file that this program did not write."""
    sources = {os.path.realpath(path) for path in images}
    written = [path for targets in pictures.values() for path in targets.values()]
    for target in [*([output] if output else []), *written]:
        if os.path.realpath(target) in sources:
            raise UsageError(f"{target} is one of the images, and would be overwritten: choose another place")
    if output:
        refuse_foreign([output], begins_as(PREDICTIONS[output.suffix]), "give another `output`")
    for kind, targets in pictures.items():
        advice = f"choose another folder for `{kind.argument}`, or move it away"
        refuse_foreign(targets.values(), bears(kind.mark), advice)
    if len(set(written)) < len(written):
        raise UsageError("pictures of two kinds would be written to the same files: choose a folder for each")


def writer_for(path: Path | None) -> Writer:
    """The writer of records to a .csv or .jsonl file (UsageError for another) or, without a path, to the screen."""
    if path is None:
        return nullcontext(lambda record: tqdm.write(record.line()))
    if path.suffix not in PREDICTIONS:
        raise UsageError(f"`output` {path}: predictions are written as .csv or .jsonl")
    return _write_file(path)


@contextmanager
def _write_file(path: Path) -> Iterator[Write]:
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", newline="", buffering=1)  # whole lines: a run of hours may be stopped

    def add(line: str) -> None:
        with naming(path):
            file.write(line)

    def write(record: Record) -> None:
        add(record.csv_row() if path.suffix == ".csv" else json.dumps(record.to_dict(), allow_nan=False) + "\n")

    try:
        if path.suffix == ".csv":
            add(csv_line(COLUMNS))
        yield write
    finally:
        with naming(path):
            file.close()


def map_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Paths in a folder for files that are to be called `names` (relative paths); one that is too long, or differs from
    another in upper and lower case alone, is cut and gets a hash of the whole."""
    paths, taken = [], set()
    for name in names:
        path, hashed = Path(name), name
        while len(os.fsencode(path.name)) > LONGEST or _as_disks_see(path) in taken:
            ending = f"-{hashlib.sha256(os.fsencode(hashed)).hexdigest()[:HASH]}{Path(name).suffix}"
            stem = os.fsencode(Path(name).stem)[: LONGEST - len(ending)].decode(errors="ignore")
            path, hashed = path.with_name(stem + ending), hashed + "'"
        taken.add(_as_disks_see(path))
        paths.append(folder / path)
    return paths


def _as_disks_see(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
