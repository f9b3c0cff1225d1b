"""What finished tasks left in a store, as the run folders that one train.py and test.py would have left: one for each
data set and method, in it one for each seed, with all categories.

    gather(store, Path("runs"))                        # whole runs: test.py, predict.py and report.py take them
    gather(store, Path("tables"), only=[RESULTS])      # for compare.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.plain_json import read_json
from utils.comparison import compare, read_runs
from utils.comparison_report import format_text, write_markdown
from utils.image_scores import SCORES, merge_scores
from utils.misc import write_text
from utils.remote_runs import APPENDED, completed, completed_keys, fetch_files
from utils.report import COLUMNS, Rows, format_table, write_csv, write_json
from utils.runs import CONFIG, RESULTS, RunError, list_seeds
from utils.store import Content, Store
from utils.sweep.plan import Plan

BY_CATEGORY = ("seconds", "test_files", "selected_epochs", "published_protocol")  # of results.json
MADE = ("training", "testing")  # how a result came about
FIGURES = ("categories", "mean")


def gather(store: Store, folder: Path, only: Collection[str] | None = None, keys: Collection[str] = ()) -> list[Path]:
    """Bring finished tasks to `folder`; returns the run folders, sorted.

    only: the names of the files that are wanted; None for all. keys: of the tasks wanted, all without any. Raises
    RunError where a run folder is there already or nothing is finished, StoreError.
    """
    found = sorted(key for key in completed_keys(store) if not keys or key in keys)
    if not found:
        raise RunError(f"{store.shown()} has no finished task" + (" of those asked for" if keys else ""))
    members: dict[Path, list[str]] = {}
    for key in found:
        dataset, method, seed, _ = key.split("/")
        members.setdefault(folder / f"{dataset}-{method}" / seed, []).append(key)
    runs = sorted({run.parent for run in members})
    taken = [str(run) for run in runs if run.exists()]
    if taken:
        raise RunError(f"{taken[0]} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".gathering-") as place:
        for run, keys_of_run in members.items():
            parts = [Path(place, key) for key in keys_of_run]
            for key, part in zip(keys_of_run, parts, strict=True):
                fetch_files(store, key, completed(store, key) or {}, part, only)
            merge_runs(parts, run)
    for run in runs:
        write_common_results(run)
    return runs


def merge_runs(parts: Sequence[Path], run: Path) -> None:
    """Make the run folder of one seed of several that have a category each, whose files it takes."""
    for part in parts:
        for path in sorted(part.glob("checkpoints/**/*.*")):
            target = run / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)  # teacher.pt is the same in all
    for name in APPENDED:
        texts = [path.read_text(encoding="utf-8") for path in (part / name for part in parts) if path.is_file()]
        if texts:
            write_text(run / name, "".join(texts))
    configs = [read_json(path) for path in (part / CONFIG for part in parts) if path.is_file()]
    if configs:
        write_text(run / CONFIG, json.dumps(_merge_settings(configs), indent=2) + "\n")
    rows, info = merge_results([read_json(part / RESULTS) for part in parts])
    write_csv(run / "results.csv", [rows])
    write_json(run / RESULTS, [rows], info)
    merge_scores([part / SCORES for part in parts], run / SCORES)


def merge_results(results: Sequence[Content]) -> tuple[Rows, Content]:
    """The figures of all categories, and what else results.json says; how each came about is in "tasks"."""
    rows = {category: row for one in results for category, row in one["categories"].items()}
    info = {name: value for name, value in results[0].items() if name not in FIGURES}
    info |= {name: {c: value for one in results for c, value in one[name].items()} for name in BY_CATEGORY}
    info["settings"] = _merge_settings([one["settings"] for one in results])
    info["skipped"] = info["settings"]["skipped"]
    info["tasks"] = {c: {name: one[name] for name in MADE} for one in results for c in one["categories"]}
    return rows, info


def _merge_settings(settings: Sequence[Mapping[str, Any]]) -> Content:
    skipped = {path: reason for one in settings for path, reason in one["skipped"].items()}
    return {**settings[0], "categories": [c for one in settings for c in one["categories"]], "skipped": skipped}


def write_common_results(run: Path) -> None:
    """Mean and standard deviation over the seeds, of the categories that all of them have."""
    seeds = [read_json(folder / RESULTS) for folder in list_seeds(run)]
    rows = common_rows(seeds)
    if rows[0]:
        about = {"seeds": [seed["seed"] for seed in seeds]}
        about |= {name: seeds[0][name] for name in ("protocol", "test_files", "skipped")}
        write_csv(run / "results.csv", rows)
        write_json(run / RESULTS, rows, about)


def common_rows(seeds: Sequence[Content]) -> list[Rows]:
    """The figures of each seed, of the categories that all have."""
    common = [c for c in seeds[0]["categories"] if all(c in seed["categories"] for seed in seeds)]
    return [{category: seed["categories"][category] for category in common} for seed in seeds]


def tabulate(store: Store, plan: Plan) -> str:
    """Bring the results of the plan's finished tasks together in results/ of the store; returns the tables to print:
    a comparison of the methods for each data set, the first method being what the others are measured against.

    Raises as `gather`.
    """
    tables = []
    with tempfile.TemporaryDirectory() as place:
        there = gather(store, Path(place), [RESULTS], {task.key for task in plan.tasks})
        for dataset in plan.data_roots:
            runs = [run for run in (Path(place, f"{dataset}-{method}") for method in plan.methods) if run in there]
            tables += [f"\n{dataset}", _compare(runs, Path(place, f"{dataset}.md"))] if runs else []
        for path in sorted(p for p in Path(place).rglob("*") if p.is_file()):
            store.put(path, f"results/{path.relative_to(place).as_posix()}")
    return "\n".join(tables)


def _compare(runs: Sequence[Path], report: Path) -> str:
    if len(runs) == 1:
        rows = common_rows([read_json(folder / RESULTS) for folder in list_seeds(runs[0])])
        return format_table(rows) if rows[0] else "no category is finished for every seed"
    try:
        comparison = compare(read_runs(runs), list(COLUMNS))
    except RunError as error:
        return str(error)
    write_markdown(report, comparison)
    return format_text(comparison)
