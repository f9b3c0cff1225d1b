"""The tables of benchmarks/peers.py, made from the JSON files of its measurements; no torch, no anomalib, no data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peer_methods import METHODS
from datasets.plain_json import read_json
from utils.metrics.tables import ABSENT, COLUMNS, Statistic
from utils.system.errors import RunError

COSTS = {  # headings by key of a record, with decimals
    "reading_s": ("reading, s", 1), "fitting_s": ("fitting, s", 1), "fitting_gb": ("fitting, peak GB", 2),
    "model_mb": ("model, MB", 1), "torch_ms": ("PyTorch, ms", 1), "file_ms": ("OpenVINO, ms", 1),
    "file_images_s": ("OpenVINO, images/s", 1), "file_gb": ("OpenVINO, peak GB", 2),
}
NEEDED = ("category", "method", "seed", "settings", "environment", "epochs", "load", "metrics", *COSTS)

Record = dict[str, Any]  # of a method with a seed on a category
Row = Callable[[Sequence[Record]], list[str]]  # the cells of a method, given its records


def read_records(folder: Path) -> list[Record]:
    """The records in a folder and those below, in order of METHODS and seed. Raises RunError for files that are none,
    and where there is none."""
    records = [read_record(path) for path in sorted(folder.rglob("*.json"))]
    if not records:
        raise RunError(f"{folder} holds no measurement; benchmarks/peers.py without --print makes them")
    return sorted(records, key=lambda record: (list(METHODS).index(record["method"]), record["seed"]))


def read_record(path: Path) -> Record:
    """A file's record. Raises RunError for anything else."""
    try:
        record = read_json(path)
    except ValueError as error:
        raise RunError(f"{path} is no measurement of benchmarks/peers.py ({error}); delete it") from error
    if not isinstance(record, dict) or not all(name in record for name in NEEDED) or record["method"] not in METHODS:
        raise RunError(f"{path} is no measurement of benchmarks/peers.py; delete it")
    return record


def format_all(records: Sequence[Record]) -> str:
    """Where the figures are from, then three Markdown tables a category."""
    sections = [describe(records)]
    for name in dict.fromkeys(record["category"] for record in records):
        sections.append(f"### {name}\n\n{format_category([one for one in records if one['category'] == name])}")
    return "\n\n".join(sections)


def describe(records: Sequence[Record]) -> str:
    """A line of each environment and settings, a second one being named as such, and the load of the machine."""
    found = dict.fromkeys(json.dumps(record["environment"] | record["settings"]) for record in records)
    lines = [", ".join(f"{name} {value}" for name, value in json.loads(text).items()) for text in found]
    if len(lines) > 1:
        lines.insert(0, f"Not one run: {len(lines)} environments or settings.")
    lines.append(f"Load of the machine before a fit: at most {max(record['load'] for record in records):.1f}.")
    failed = {one["method"]: f"No file of {METHODS[one['method']].title}: {one['file_error']}" for one in records
              if "file_error" in one}
    lines += failed.values()
    return "\n".join(lines)


def format_category(records: Sequence[Record]) -> str:
    """Accuracy; cost; and what clamping costs those that clamp."""
    accuracy = table(["epochs", "seeds", *COLUMNS.values()], records, accuracy_cells)
    cost = table([heading for heading, _ in COSTS.values()], records, cost_cells)
    clamped = [record for record in records if "clamped" in record]
    if not clamped:
        return f"{accuracy}\n\n{cost}"
    headings = [text for heading in COLUMNS.values() for text in (heading, "clamped")]
    return f"{accuracy}\n\n{cost}\n\n{table(headings, clamped, clamped_cells)}"


def table(headings: Sequence[str], records: Sequence[Record], row: Row) -> str:
    """A Markdown table, a row a method."""
    lines = [["method", "teacher", *headings], ["---"] * (2 + len(headings))]
    for method, own in by_method(records):
        lines.append([METHODS[method].title, METHODS[method].teacher, *row(own)])
    return "\n".join(f"| {' | '.join(cells)} |" if cells[0] != "---" else f"|{'|'.join(cells)}|" for cells in lines)


def by_method(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Each method with its records."""
    for method in dict.fromkeys(record["method"] for record in records):
        yield method, [record for record in records if record["method"] == method]


def accuracy_cells(records: Sequence[Record]) -> list[str]:
    epochs = "; ".join(dict.fromkeys(record["epochs"] for record in records))
    return [epochs, str(len(records)), *(percent(records, "metrics", name) for name in COLUMNS)]


def cost_cells(records: Sequence[Record]) -> list[str]:
    return [number([record[name] for record in records], decimals) for name, (_, decimals) in COSTS.items()]


def clamped_cells(records: Sequence[Record]) -> list[str]:
    return [percent(records, part, name) for name in COLUMNS for part in ("metrics", "clamped")]


def percent(records: Sequence[Record], part: str, metric: str) -> str:
    """Mean and spread of a metric in percent; a dash where a record lacks it."""
    values = [record[part].get(metric) for record in records]
    return ABSENT if None in values else Statistic.over(values).percent()


def number(values: Sequence[float | None], decimals: int) -> str:
    """Mean and spread of figures; a dash where one is missing."""
    if None in values:
        return ABSENT
    mean, spread = Statistic.over(values)
    return f"{mean:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")
