"""Gather finished tasks of a store as the run folders that one train.py and test.py would have left: one for each data
set and method, in it one for each seed, with all categories."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.names import misfit_of, printable
from datasets.plain_json import read_json, read_text
from models.recipes import METHODS
from utils.metrics.tables import COLUMNS, Rows, format_table, write_csv, write_json
from utils.results.comparison import Run, compare, read_runs
from utils.results.comparison_report import format_text, write_markdown
from utils.results.record import RESULTS_CSV, SCORES, merge_scores, read_results
from utils.runs.folder import CHECKPOINTS, RESULTS
from utils.runs.history import read_metrics
from utils.runs.settings import CONFIG, TEACHER, read_config
from utils.sweep.attempts import APPENDED, COMPLETE, TASKS, check_content, completed_keys, fetch_files
from utils.sweep.plan import Plan
from utils.sweep.store import Content, Store
from utils.system.errors import RunError, StoreError
from utils.system.files import write_text

OPTIONAL = ("models", "lost_regions")  # in results.json: earlier ones do not have them
BY_CATEGORY = ("seconds", "test_files", "published_protocol", *OPTIONAL)
SEED = re.compile(r"seed(0|[1-9]\d{0,18})")
MADE = ("training", "testing")  # how a result came about
NOT_MERGED = ("categories", "mean", "selected_epochs")  # figures, and by category in results.json of earlier versions


class Gathered(NamedTuple):
    """Run folders, sorted, and why which tasks are in none."""

    runs: list[Path]
    skipped: dict[str, str]


def gather(store: Store, folder: Path, only: Collection[str] | None = None, keys: Collection[str] = ()) -> Gathered:
    """Bring finished tasks to `folder`; one that cannot be used does not stop the others.

    only: names of files, None for all; keys: of tasks, all without any. Raises RunError where a run folder is there
    already or nothing is finished.
    """
    finished = sorted(key for key in completed_keys(store) if not keys or key in keys)
    if not finished:
        raise RunError(f"{store.url_of()} has no finished task" + (" of those asked for" if keys else ""))
    skipped = {key: reason for key in finished if (reason := misfit_of_key(key))}
    members: dict[Path, list[str]] = {}
    for key in (key for key in finished if key not in skipped):
        dataset, method, seed, _ = key.split("/")
        members.setdefault(folder / f"{dataset}-{method}" / seed, []).append(key)
    if taken := sorted(str(run.parent) for run in members if run.parent.exists()):
        raise RunError(f"{taken[0]} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    made = set()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".gathering-") as place:
        for run, keys_of_run in members.items():
            parts = []
            for key in keys_of_run:
                try:
                    fetch_task(store, key, Path(place, key), only)
                    parts.append(Path(place, key))
                except (StoreError, RunError, ValueError) as error:
                    skipped[key] = str(error)
            if parts:
                merge_runs(parts, run)
                made.add(run.parent)
    for run in made:
        write_common_results(run)
    return Gathered(sorted(made), skipped)


def misfit_of_key(key: str) -> str:
    """The reason why a key is no task's, "" if it is."""
    parts = key.split("/")
    if len(parts) != 4 or parts[1] not in METHODS or not SEED.fullmatch(parts[2]):
        return "its name is not DATASET/METHOD/seedN/CATEGORY"
    return misfit_of(parts[0]) or misfit_of(parts[3])


def fetch_task(store: Store, key: str, part: Path, only: Collection[str] | None) -> None:
    """Bring a finished task to the folder `part`. Raises StoreError, RunError or ValueError for what no sweep leaves:
    whoever can write to the store may have made it."""
    content = check_content(store.read_json(f"{TASKS}/{key}/{COMPLETE}"))
    _, _, seed, category = key.split("/")
    allowed = f"checkpoints/{category}/", f"maps/{category}/"
    for name in content["files"]:
        if "/" in name and not name.startswith(allowed) and name != f"{CHECKPOINTS}/{TEACHER}":
            raise ValueError(f"it has files of something else than {printable(category)}: {printable(name)[:200]}")
    fetch_files(store, key, content, part, only)
    try:
        read_results(part, part)
        check_results(read_json(part / RESULTS), category, int(seed.removeprefix("seed")))
        if (part / CONFIG).is_file():
            read_config(part)
            _check_lists(read_json(part / CONFIG), category)
        read_metrics(part)
        for name in APPENDED:
            if (part / name).is_file():
                read_text(part / name)
    except (RunError, OSError, ValueError) as error:
        raise RunError(str(error).replace(str(part), printable(key))) from error


def check_results(results: Content, category: str, seed: int) -> None:
    """Refuse a results.json that is not of one category and seed, with all that is merged of it, by ValueError."""
    if list(results["categories"]) != [category] or results.get("seed") != seed:
        raise ValueError(f"its {RESULTS} is not that of {printable(category)} with seed {seed} alone")
    for name in (*BY_CATEGORY, "protocol", "skipped"):
        value = results.get(name, {} if name in OPTIONAL else None)
        if not isinstance(value, dict):
            raise ValueError(f"its {RESULTS} has no {name}")
        if name in BY_CATEGORY and not set(value) <= {category}:
            raise ValueError(f"its {RESULTS} has {name} of others than {printable(category)}")
    _check_lists(results["settings"], category)


def _check_lists(settings: Mapping[str, Any], category: str) -> None:
    if settings.get("categories") != [category] or not isinstance(settings.get("skipped"), dict):
        raise ValueError(f"its settings are not those of {printable(category)} alone")


def merge_runs(parts: Sequence[Path], run: Path) -> None:
    """Make the run folder of one seed of several that have a category each, whose files it takes.

    How each category came about is in "tasks" of results.json.
    """

    def existing(name: str) -> list[Path]:
        return [part / name for part in parts if (part / name).is_file()]

    for part in parts:
        for path in sorted(part.glob("checkpoints/**/*.*")):
            target = run / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)  # teacher.pt is the same in all
    for name in APPENDED:
        if paths := existing(name):
            write_text(run / name, "".join(map(read_text, paths)))
    if configs := [read_json(path) for path in existing(CONFIG)]:
        write_text(run / CONFIG, json.dumps(_merge_settings(configs), indent=2) + "\n")
    results = [read_json(part / RESULTS) for part in parts]
    rows = {category: row for one in results for category, row in one["categories"].items()}
    info = {name: value for name, value in results[0].items() if name not in NOT_MERGED}
    info |= {name: {c: value for one in results for c, value in one.get(name, {}).items()} for name in BY_CATEGORY}
    info["settings"] = _merge_settings([one["settings"] for one in results])
    info["skipped"] = info["settings"]["skipped"]
    info["tasks"] = {c: {name: one[name] for name in MADE} for one in results for c in one["categories"]}
    write_csv(run / RESULTS_CSV, [rows])
    write_json(run / RESULTS, [rows], info)
    merge_scores([part / SCORES for part in parts], run / SCORES)


def _merge_settings(settings: Sequence[Mapping[str, Any]]) -> Content:
    skipped = {path: reason for one in settings for path, reason in one["skipped"].items()}
    return {**settings[0], "categories": [c for one in settings for c in one["categories"]], "skipped": skipped}


def write_common_results(run: Path) -> None:
    """Write mean and standard deviation over the seeds, of the categories that all of them have."""
    [scored] = read_runs([run])
    rows = common_rows(scored)
    if rows[0]:
        about = {"seeds": [seed["seed"] for seed in scored.seeds]}
        about |= {name: scored.seeds[0][name] for name in ("protocol", "test_files", "skipped")}
        write_csv(run / RESULTS_CSV, rows)
        write_json(run / RESULTS, rows, about)


def common_rows(run: Run) -> list[Rows]:
    """Figures of each seed, of the categories that all have."""
    return [{category: seed["categories"][category] for category in run.categories()} for seed in run.seeds]


def tabulate(store: Store, plan: Plan) -> str:
    """Bring the results of the plan's finished tasks together in results/ of the store; returns the tables to print:
    a comparison of the methods for each data set, the first method being what the others are measured against."""
    tables = []
    with tempfile.TemporaryDirectory() as place:
        there, skipped = gather(store, Path(place), [RESULTS], {task.key for task in plan.tasks})
        tables += [f"left out: {key}: {reason}" for key, reason in skipped.items()]
        for dataset in plan.data_roots:
            runs = [run for run in (Path(place, f"{dataset}-{method}") for method in plan.methods) if run in there]
            tables += [f"\n{dataset}", _compare(runs, Path(place, f"{dataset}.md"))] if runs else []
        for path in sorted(p for p in Path(place).rglob("*") if p.is_file()):
            store.put(path, f"results/{path.relative_to(place).as_posix()}")
    return "\n".join(tables)


def _compare(folders: Sequence[Path], report: Path) -> str:
    try:
        runs = read_runs(folders)
        if len(runs) == 1:
            rows = common_rows(runs[0])
            return format_table(rows) if rows[0] else "no category is finished for every seed"
        comparison = compare(runs, list(COLUMNS))
    except RunError as error:
        return str(error)
    write_markdown(report, comparison)
    return format_text(comparison)
