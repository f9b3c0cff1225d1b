"""A run folder: its settings, the metrics of its epochs, and how the newest one of a data set is found.

    runs/NAME/config.json      the settings of train.py
    runs/NAME/log.txt, metrics.jsonl    see utils/runs/history.py
    runs/NAME/checkpoints/teacher.pt, <category>/stage1.pt, stage2.pt    see utils/runs/checkpoint.py
    runs/NAME/checkpoints/<category>/view.json    what the model is shown of an image
    runs/NAME/checkpoints/<category>/thresholds.json    see utils/detection/thresholds.py
    runs/NAME/checkpoints/<category>/training_images.json    see utils/runs/training_images.py
    runs/NAME/checkpoints/<category>/stage1.progress.pt    of an unfinished stage, see utils/training/resumable.py
    runs/NAME/.lock            held by the process that trains
    runs/NAME/results.csv, results.json, scores.csv, maps/    written by test.py
    runs/NAME/seed0/, seed1/, ...    with train.py --seeds: a run folder each, and their common results in runs/NAME
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets.levels import EARLIER_LEVELS, Levels
from datasets.plain_json import parse_json, read_json, read_text
from datasets.view import View
from models.recipes import METHODS
from utils.metrics import METRICS
from utils.runs.settings import LAST_EPOCH, RATED_EPOCH, SYNTHETIC, check_record, check_values
from utils.system.errors import RunError
from utils.system.files import write_text

CONFIG = "config.json"
RESULTS = "results.json"
NEEDED_SETTINGS = ("method", "backbone", "image_size", "dataset", "data_root", "command", "started")
# What may differ when a run goes on:
FREE_SETTINGS = (
    "categories", "device", "workers", "eval_every", "started", "command", "code", "environment", "processes",
    "holdout",  # of earlier versions: means nothing but with "select"
)
# Flags of train.py that config.json does not keep, because they change no result:
NOT_SETTINGS = ("output", "resume", "fg_root", "seeds", "cache", "cache_dir", "cache_features", "skip_bad")
# Of settings that do not say:
EARLIER = {
    "recipe": "published", "select": LAST_EPOCH, "calibration": 0.0, "far": 0.01, "skipped": {}, "deterministic": False,
    "sync_norms": False, "processes": 1, "white_level": None,
}
SEED_FOLDERS = "seed[0-9]*"
OFFICIAL = "official checkpoint"  # "weights" of a run that was made of the public code's
WRITTEN = ("log.txt", "metrics.jsonl", "checkpoints")  # after CONFIG


def teacher_path(run: Path, category: str | None = None) -> Path:
    """Of the run or, for what was converted with other teachers, of one category."""
    return Path(run / "checkpoints", category or "", "teacher.pt")


def stage_path(run: Path, category: str, stage: int) -> Path:
    return run / "checkpoints" / category / f"stage{stage}.pt"


def progress_path(run: Path, category: str, stage: int) -> Path:
    """Of a stage that is not finished."""
    return run / "checkpoints" / category / f"stage{stage}.progress.pt"


def remove_finished_progress(run: Path, category: str) -> None:
    """Delete the progress of stages that are finished: a process may have been killed before it did."""
    for stage in (1, 2):
        if stage_path(run, category, stage).is_file():
            progress_path(run, category, stage).unlink(missing_ok=True)


def view_path(run: Path, category: str) -> Path:
    return run / "checkpoints" / category / "view.json"


def thresholds_path(run: Path, category: str) -> Path:
    return run / "checkpoints" / category / "thresholds.json"


def training_images_path(run: Path, category: str) -> Path:
    return run / "checkpoints" / category / "training_images.json"


def keep_view(run: Path, category: str, view: View) -> None:
    """Write what the model is shown; RunError if a run that goes on was shown something else. Views from before there
    were levels are those of any levels by which files are read as they were then."""
    path = view_path(run, category)
    if path.is_file():
        before = read_view(run, category)
        same_levels = before.levels == view.levels or (before.levels == EARLIER_LEVELS and view.levels == Levels())
        if not same_levels or replace(before, levels=view.levels) != view:
            raise RunError(f"{path}: the training images are not those that the run was started with; choose another "
                           "--output")
    else:
        write_text(path, json.dumps(asdict(view), indent=2) + "\n")


def read_view(run: Path, category: str) -> View:
    """What the model of a category is shown; RunError naming the file if it cannot be read. Runs of the published
    recipe had no such file before there were levels."""
    config, path = read_config(run), view_path(run, category)
    if not path.exists() and not METHODS[config["method"]][config["recipe"]].own_view:
        return View(levels=EARLIER_LEVELS)
    try:
        return View.from_dict(read_json(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error})") from error


def open_run(folder: Path, settings: Mapping[str, Any], other_seeds: Iterable[Path] = ()) -> None:
    """Start a run folder, or go on with one that was started with the same settings; raises as `check_settings`."""
    check_settings(folder, settings, other_seeds)
    if not (folder / CONFIG).is_file():
        write_text(folder / CONFIG, json.dumps(settings, indent=2) + "\n")


def check_settings(folder: Path, settings: Mapping[str, Any], other_seeds: Iterable[Path] = ()) -> None:
    """Whether `open_run` can be called.

    `other_seeds` are the folders of the same run of several seeds, whose settings must be the same but for the seed.

    Raises RunError listing the differences if the folder holds a run with other settings, or one of several seeds, or
    what a run would write to but no run wrote.
    """
    if not (folder / CONFIG).is_file():
        foreign = [name for name in (CONFIG, *WRITTEN) if os.path.lexists(folder / name)]
        if foreign:
            raise RunError(f"{folder} has {foreign[0]}, but is no run folder of train.py: choose another --output")
    if any(folder.glob(f"{SEED_FOLDERS}/{CONFIG}")):
        raise RunError(f"{folder} holds a run of several seeds; go on with --seeds or choose another --output")
    for other in (*other_seeds, folder):
        if not (other / CONFIG).is_file():
            continue
        before = read_config(other)
        refuse_rated(other, before)
        own_seed = {} if other == folder else {"seed": before.get("seed")}
        differences = setting_differences(before, {**settings, **own_seed})
        if differences:
            shown = "; ".join(differences)
            raise RunError(f"{other} holds a run with other settings ({shown}); choose another --output")


def refuse_rated(run: Path, settings: Mapping[str, Any]) -> None:
    """RunError for a run of an earlier version whose result is an epoch chosen on synthetic anomalies: it can be used,
    but not go on."""
    if settings["select"] == RATED_EPOCH:
        raise RunError(f"{run} was started with --select synthetic, which train.py no longer has: it can be scored and "
                       "used, but not resumed; choose another --output")


def setting_differences(before: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What keeps a run with the settings `before` from going on with others, a line each."""
    settings = EARLIER | settings
    names = [name for name in {**before, **settings} if name not in FREE_SETTINGS]
    return [f"{n}: {before.get(n)} -> {settings.get(n)}" for n in names if before.get(n) != settings.get(n)]


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run; RunError if there are none to read, what every run has is missing, or one that programs
    read is of another kind."""
    try:
        config = read_json(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} is not a run folder of train.py: {CONFIG} cannot be read ({error})") from error
    missing = [name for name in NEEDED_SETTINGS if not isinstance(config, dict) or name not in config]
    if missing:
        raise RunError(f"{folder} is not a run folder of train.py: {CONFIG} has no {', '.join(missing)}")
    config = EARLIER | config
    try:
        check_values(config)
    except ValueError as error:
        raise RunError(f"{folder / CONFIG} cannot be used: {error}") from error
    return config


def seed_folder(run: Path, seed: int) -> Path:
    """The folder of one seed in a run of several; RunError if `run` is already the run of a single one."""
    if (run / CONFIG).is_file():
        raise RunError(f"{run} holds a run of a single seed; choose another --output for several")
    return run / f"seed{seed}"


def seed_folders(run: Path) -> list[Path]:
    """The run folders in a run, one a seed in the order of seeds: [run] itself if it is of a single seed.

    Raises RunError if there are none.
    """
    if (run / CONFIG).is_file():
        return [run]
    found = [folder for folder in list_seeds(run) if (folder / CONFIG).is_file()]
    if not found:
        raise RunError(
            f"{run} is not a run folder of train.py: no {CONFIG} in it, and no seed0/, seed1/, ...; the public code's "
            "checkpoints become one with scripts/convert_checkpoint.py from_official"
        )
    return found


def list_seeds(run: Path) -> list[Path]:
    """The folders seed0/, seed1/, ... in a run, in the order of seeds; empty for a run of a single one."""
    found = [path for path in run.glob(SEED_FOLDERS) if path.name[4:].isdecimal()]
    return sorted(found, key=lambda folder: int(folder.name[4:]))


def trained_categories(run: Path) -> list[str]:
    """The categories of a run whose last stage is finished, for every one of its seeds; sorted."""
    pattern = stage_path(Path(), "*", 2)
    finished = [{path.parent.name for path in folder.glob(str(pattern))} for folder in seed_folders(run)]
    return sorted(set.intersection(*finished))


def newest_run(data_root: Path, runs: Path = Path("runs")) -> Path:
    """The run of the data set in `data_root` that was started last and has a trained category.

    A folder whose config.json cannot be read is passed over, and so are those of utils/runs/official.py, which go with
    the checkpoints that they were converted from. Raises RunError saying which runs there are if none fits.
    """
    found = []
    others = []
    for folder in (path for path in runs.glob("*") if path.is_dir()):
        try:
            config = read_config(seed_folders(folder)[0])
        except RunError:
            continue
        if config["data_root"] != str(data_root.resolve()) or "checkpoints" in config:
            others.append(f"{folder} (of {config['data_root']})")
        elif trained_categories(folder):
            found.append((config["started"], folder))
    if not found:
        there = f"; there are: {', '.join(sorted(others))}; choose one with --run" if others else ""
        raise RunError(f"no trained run of {data_root} in {runs}/{there or '; train one with train.py'}")
    return max(found)[1]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, an epoch each; of an epoch that was run twice the later one. Empty without a file.

    Raises RunError for a line that no epoch leaves.
    """
    path = folder / "metrics.jsonl"
    records: dict[tuple, dict[str, Any]] = {}
    try:
        for line in read_text(path).splitlines() if path.is_file() else []:
            record = check_record(parse_json(line))
            key = record["category"], record["stage"], record["epoch"]
            records.pop(key, None)
            records[key] = record
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove its last line if it is not whole") from error
    return list(records.values())


def published_protocol(folder: Path) -> dict[str, dict[str, Any]]:
    """What choosing the epoch on the test set would give, by category: {"epoch", "metrics", "gain"}.

    The epoch with the highest image AUROC on the test set among those that --eval_every logged, as many publications
    choose it; of equal ones the first. "metrics" are those of this epoch, "gain" how much they are above the result's,
    which is the last epoch or, of earlier versions, the one with the highest mean on synthetic anomalies where they
    were logged. Categories without logged test metrics of both are absent.
    """
    curves: dict[str, dict[int, dict[str, float]]] = {}
    ratings: dict[str, dict[int, float]] = {}
    for record in read_metrics(folder):
        category, epoch = record["category"], record["epoch"]
        if "image_auroc" in record:
            curves.setdefault(category, {})[epoch] = {m: record[m] for m in METRICS if m in record}
        if rated := [value for name, value in record.items() if name.startswith(SYNTHETIC)]:
            ratings.setdefault(category, {})[epoch] = fmean(rated)
    chosen = {}
    for category, curve in curves.items():
        rated = ratings.get(category)
        result = curve.get(max(rated, key=rated.get) if rated else max(curve))
        if result is None:
            continue
        epoch = max(sorted(curve), key=lambda epoch: curve[epoch]["image_auroc"])
        gain = {metric: value - result[metric] for metric, value in curve[epoch].items() if metric in result}
        chosen[category] = {"epoch": epoch, "metrics": curve[epoch], "gain": gain}
    return chosen
