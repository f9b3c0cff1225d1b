"""Results of a run as a table, a CSV file and a JSON file, and the environment they were made in.

`rows` is {category: {metric: value}} throughout: metrics named as in utils/metrics.py, values as fractions in 0..1.
A metric that could not be computed is not in its row; it becomes a dash in the table, an empty field in the CSV file
and stays away from the JSON file.
"""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.misc import atomic_write, write_text

COLUMNS = {"image_auroc": "I-AUROC", "pixel_auroc": "P-AUROC", "aupro": "PRO"}  # metric -> heading
PACKAGES = ("torch", "torchvision", "timm", "numpy")
ABSENT = "–"

Rows = Mapping[str, Mapping[str, float]]


def mean_row(rows: Rows) -> dict[str, float]:
    """Mean of each metric over the categories that have it; without a metric that none has.

    A mean over some of the categories only is still given; `format_table` says below the table how many they are.

    Raises ValueError for a metric that is not in COLUMNS and for a value that is not a fraction in 0..1.
    """
    _check(rows)
    means = {}
    for metric in COLUMNS:
        values = [row[metric] for row in rows.values() if metric in row]
        if values:
            means[metric] = float(sum(values) / len(values))
    return means


def format_table(rows: Rows) -> str:
    """A row per category and a Mean row; percent with two decimals, a dash for what could not be computed.

    Raises as `mean_row` does.
    """
    means = mean_row(rows)
    cells = [["Category", *COLUMNS.values()]]
    cells += [[name, *(_percent(row.get(metric)) for metric in COLUMNS)] for name, row in rows.items()]
    cells += [["Mean", *(_percent(means.get(metric)) for metric in COLUMNS)]]
    lines = align_columns(cells)
    rule = "-" * len(lines[0])
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    for metric in means:
        count = sum(metric in row for row in rows.values())
        if count < len(rows):
            table.append(f"Mean {COLUMNS[metric]} is over {count} of {len(rows)} categories.")
    return "\n".join(table)


def align_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of equal length: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def write_csv(path: str | Path, rows: Rows) -> None:
    """A line per category and one named Mean, as fractions in full precision (the header says so); in one piece.

    Raises as `mean_row` does, and OSError if the file cannot be written.
    """
    means = mean_row(rows)
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["category", *(f"{metric} [0..1]" for metric in COLUMNS)])
        for name, row in [*rows.items(), ("Mean", means)]:
            writer.writerow([name, *(float(row[metric]) if metric in row else "" for metric in COLUMNS)])


def write_json(path: str | Path, rows: Rows, info: Mapping[str, Any]) -> None:
    """{"categories": rows, "mean": their mean, **info}, as fractions in full precision; written in one piece.

    `info` says what the figures are of: command, seed, environment, duration; plain built-ins only.

    Raises as `mean_row` does; ValueError if `info` has a key of the result's own, or NaN; TypeError if it holds
    something JSON has no word for; OSError if the file cannot be written.
    """
    results = {
        "categories": {name: {metric: float(value) for metric, value in row.items()} for name, row in rows.items()},
        "mean": mean_row(rows),
    }
    taken = results.keys() & info.keys()
    if taken:
        raise ValueError(f"info must not have the keys {sorted(taken)}: they are the results' own")
    text = json.dumps({**results, **info}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def environment() -> dict[str, Any]:
    """Versions and hardware that figures depend on: {"python", "torch", ..., "system", "machine", "cpu", "cores"}.

    Without names of hosts, users or folders. A package that is not installed and a CPU without a name are left out.
    """
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found |= {"system": platform.system(), "machine": platform.machine(), "cores": _count_cores()}
    cpu = _cpu_model()
    return {**found, "cpu": cpu} if cpu else found


def _count_cores() -> int | None:
    """Cores this process may use, where the system tells; otherwise all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is mostly empty
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{100 * value:.2f}"


def _check(rows: Rows) -> None:
    for name, row in rows.items():
        for metric, value in row.items():
            if metric not in COLUMNS:
                raise ValueError(f"{name}: unknown metric {metric!r}, expected one of {', '.join(COLUMNS)}")
            if not 0 <= value <= 1:  # NaN fails too
                raise ValueError(f"{name}: {metric} must be a fraction in 0..1, got {value}")
