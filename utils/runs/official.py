"""Folders of the public code's checkpoints as run folders of ours: converted once, and again when a file changes.

    AAND/checkpoints_Stage1/wres50_bottle.pth, AAND/checkpoints_Stage2/wres50_bottle.pth, ...
    runs/mvtec-official-1a2b3c4d/              what they become: scored, calibrated and exported like any other run

The folder itself is only read. models/official.py knows what is in the files.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from datasets import DATASETS, DataSource, open_dataset
from datasets.names import printable
from datasets.plain_json import read_json
from models import WeightsError
from models.official import build_official, load_ours, read_official, split_official
from utils.runs.checkpoint import load_checkpoint, save_checkpoint, state_of
from utils.runs.folder import Run, RunCategory
from utils.runs.official_files import STAGE_FOLDERS, stage_file
from utils.runs.resuming import LOCK, open_run
from utils.runs.settings import CONFIG, OFFICIAL
from utils.system.errors import RunError
from utils.system.files import write_text

IMAGE_SIZE = 256  # pixels, as the public code has it
FILE_NAME = re.compile(r"wres50_([^.].*)\.pth", re.DOTALL)
Files = tuple[Path, Path]  # of stage 1 and stage 2


def find_checkpoints(folder: Path, asked: Sequence[str] | None = None) -> dict[str, Files]:
    """The files of each category that has both stages, or of those asked for; others are named on stderr.

    Raises RunError naming the files that are missing of categories asked for, or where there is none with both.
    """
    stages = [
        {m[1] for path in (folder / name).glob("*.pth") if path.is_file() and (m := FILE_NAME.fullmatch(path.name))}
        for name in STAGE_FOLDERS
    ]
    complete, halves = sorted(stages[0] & stages[1]), sorted(stages[0] ^ stages[1])
    if asked:
        halves = [category for category in asked if category not in complete]
    missing = [
        printable(stage_file(folder, category, stage))
        for category in halves
        for stage in (1, 2)
        if category not in stages[stage - 1]
    ]
    has = f"; with both stages there: {printable(', '.join(complete)) or 'none'}"
    if missing and (asked or not complete):
        raise RunError(f"there is no {', '.join(missing)}: a model needs both stages{has}")
    if not complete:
        raise RunError(f"there is no {printable(stage_file(folder, '<category>', 1))}, nor one of stage 2")
    if missing:
        print(f"not used, since there is no {', '.join(missing)}", file=sys.stderr)
    return {c: (stage_file(folder, c, 1), stage_file(folder, c, 2)) for c in (asked or complete)}


def official_run_of(
    folder: Path, data_root: Path, categories: Sequence[str] | None, image_size: int | None
) -> tuple[Path, list[str]]:
    """The run folder of the checkpoints of a data set's categories, all that both have unless some are asked for, and
    their names.

    Raises RunError where there are none, DataError for a data set that cannot be used.
    """
    files = find_checkpoints(folder, categories)
    source = open_dataset(data_root)
    absent = [category for category in files if category not in source.categories]
    if absent and (categories or len(absent) == len(files)):
        raise RunError(
            f"{printable(source.root)} has no {printable(', '.join(absent))}; it has: "
            f"{printable(', '.join(source.categories))}"
        )
    if absent:
        print(f"checkpoints, but not in {printable(source.root)}: {printable(', '.join(absent))}", file=sys.stderr)
    files = {category: pair for category, pair in files.items() if category not in absent}
    return _converted(folder, files, source.name, image_size, source), list(files)


def official_category_of(folder: Path, category: str | None, image_size: int | None) -> tuple[Path, str]:
    """The run folder of one category's checkpoints, the only one's unless it is named, and the category.

    Raises RunError where it is not clear which is meant, or one of its files is missing.
    """
    files = find_checkpoints(folder, category and [category])
    if len(files) > 1:
        raise RunError(f"{printable(folder)} has several categories; choose one of: {printable(', '.join(files))}")
    [category] = files
    dataset = next((name for name, reader in DATASETS.items() if category in reader.CATEGORIES), "folder")
    return _converted(folder, files, dataset, image_size), category


def _converted(
    folder: Path, files: Mapping[str, Files], dataset: str, size: int | None, source: DataSource | None = None
) -> Path:
    """The run folder of these files, converted where that has not been done or they are others now."""
    origin, size = str(folder.resolve()), size or IMAGE_SIZE
    run = Path("runs") / f"{dataset}-official-{hashlib.sha256(f'{origin} {size}'.encode()).hexdigest()[:8]}"
    root = str(source.root.resolve()) if source else origin  # where the data are is not known yet
    settings = official_settings(dataset, root, size) | {"checkpoints": origin}
    if (run / CONFIG).is_file():
        before = Run(run).config
        if source and before["data_root"] == origin:
            before |= {"data_root": root}
            write_text(run / CONFIG, json.dumps(before, indent=2) + "\n")
        settings |= {"data_root": before["data_root"]}
    ours = {Run(run).category(name): pair for name, pair in files.items()}
    if any(_is_stale(category, pair) for category, pair in ours.items()):
        run.mkdir(parents=True, exist_ok=True)
        with FileLock(run / LOCK):  # another process may be doing the same
            stale = {category: pair for category, pair in ours.items() if _is_stale(category, pair)}
            for category, pair in tqdm(stale.items(), desc="converting", unit="category", disable=None, leave=False):
                state = _state(pair)
                convert(pair, category, settings)
                write_text(_record(category), json.dumps(state) + "\n")
        names = printable(", ".join(category.name for category in stale))
        print(f"converted {names} of {printable(folder)} to {run}, where results are written", file=sys.stderr)
    return run


def official_settings(dataset: str, data_root: str, size: int) -> dict[str, Any]:
    """The content of config.json in a run that was converted."""
    return {
        "method": "aand",
        "backbone": "wide_resnet50_2",
        "weights": OFFICIAL,
        "image_size": size,
        "dataset": dataset,
        "data_root": data_root,
        "command": "scripts/convert_checkpoint.py from_official",
        "started": datetime.now().isoformat(timespec="seconds"),
    }


def convert(files: Files, category: RunCategory, settings: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Write the checkpoints of a category into a run folder, which is made; returns the tensors that the method never
    reads.

    The teacher is the run's or, where the training of the public code left another one, the category's own. Raises
    WeightsError for files that are not of the public code.
    """
    parts, source = read_official(*files), " and ".join(map(printable, files))
    try:
        ours, unused = split_official(parts)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    model = build_official()
    load_ours(model, ours, source)
    open_run(category.run.folder, settings)  # not before the files are known to be good
    _forget(category)
    trunk, path = model.pretrained.trunk, category.run.teacher
    if path.is_file() and not _holds(path, trunk, settings):
        path = category.teacher
    if not (path.is_file() and path == category.run.teacher):
        save_checkpoint(path, {"trunk": trunk}, settings, seconds=0.0)
    made_with = {path.name: state_of({"trunk": trunk})}
    for number, parts in model.stage_parts().items():
        stored = category.stage(number)
        save_checkpoint(stored, parts, settings, 0.0, category.name, made_with)
        made_with = {**made_with, stored.name: state_of(parts)}
    return unused


def _holds(path: Path, trunk: torch.nn.Module, settings: Mapping[str, Any]) -> bool:
    """Tell whether a teacher's file holds this trunk, bit for bit."""
    stored = copy.deepcopy(trunk)
    load_checkpoint(path, {"trunk": stored}, settings)
    before = stored.state_dict()
    return all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())


def _record(category: RunCategory) -> Path:
    return category.folder / "official.json"


def _is_stale(category: RunCategory, files: Files) -> bool:
    """Tell whether a category is yet to be converted from these files as they are now."""
    try:
        return read_json(_record(category)) != _state(files)
    except (OSError, ValueError):
        return True


def _state(files: Files) -> list[list[int]]:
    """Size, and when content and entry were changed, of each file: other files differ in these."""
    return [[s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in (path.stat() for path in files)]


def _forget(category: RunCategory) -> None:
    """Delete what was made of other files, thresholds set for them too."""
    for path in (_record(category), category.thresholds, category.stage(2), category.stage(1), category.teacher):
        path.unlink(missing_ok=True)
