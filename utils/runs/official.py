"""Folders of the public code's checkpoints as run folders of ours: converted once, and again when a file changes.

AAND/checkpoints_Stage1/wres50_bottle.pth and its like become runs/mvtec-official-1a2b3c4d/, scored, calibrated and
exported like any other run; the folder itself is only read. models/official.py knows what is in the files.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from datasets import DataSource
from datasets.names import printable
from datasets.plain_json import read_json
from models import WeightsError
from models.official import build_official, load_ours, read_official, split_official
from utils.runs.checkpoint import load_checkpoint, save_checkpoint, state_of
from utils.runs.folder import Run, RunCategory
from utils.runs.resuming import LOCK, open_run
from utils.runs.settings import CONFIG, OFFICIAL
from utils.system.files import write_text

IMAGE_SIZE = 256  # pixels, as the public code has it
Files = tuple[Path, Path]  # of stage 1 and stage 2


def converted(
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
    stages = (category.stage(2), category.stage(1))
    for path in (_record(category), category.thresholds, *stages, category.teacher):  # made of other files
        path.unlink(missing_ok=True)
    trunk, path = {"trunk": model.pretrained.trunk}, category.run.teacher
    if path.is_file():
        stored = copy.deepcopy(trunk)
        load_checkpoint(path, stored, settings)
        if state_of(stored) != state_of(trunk):
            path = category.teacher
    if not path.is_file():
        save_checkpoint(path, trunk, settings, seconds=0.0)
    made_with = {path.name: state_of(trunk)}
    for number, parts in model.stage_parts().items():
        stored = category.stage(number)
        save_checkpoint(stored, parts, settings, 0.0, category.name, made_with)
        made_with = {**made_with, stored.name: state_of(parts)}
    return unused


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
