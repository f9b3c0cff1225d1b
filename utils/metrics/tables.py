"""Results as tables, CSV and JSON files: of one run, or of runs that differ in their seed alone.

`rows` is {category: {metric: value}}, fractions in 0..1; `runs` a sequence of rows of the same categories, one for each
seed. A metric that could not be computed is not in its row: a dash in the table, an empty field in the CSV file, away
from the JSON file. Functions of rows raise ValueError for an unknown metric, and a value that is no fraction in 0..1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from datasets.names import csv_line, json_text, printable
from utils.system.files import write_text

EXTRA_HEADINGS = {  # of metrics that single data sets define
    "image_auroc_logical": "I-AUROC logical", "image_auroc_structural": "I-AUROC structural",
    "image_auroc_mean": "I-AUROC mean", "spro_logical": "sPRO logical", "spro_structural": "sPRO structural",
    "spro_mean": "sPRO mean", "aupro_005": "PRO 0.05", "segf1": "SegF1",
}
HEADINGS = {
    "image_auroc": "I-AUROC", "image_ap": "I-AP", "image_f1_max": "I-F1max",
    "pixel_auroc": "P-AUROC", "pixel_ap": "P-AP", "pixel_f1_max": "P-F1max",
    "aupro": "PRO", "aupro_per_image": "PRO per image",
    **EXTRA_HEADINGS,
}
COLUMNS = {metric: HEADINGS[metric] for metric in ("image_auroc", "pixel_auroc", "aupro")}  # of the printed tables
ABSENT = "–"

Rows = Mapping[str, Mapping[str, float]]


class Statistic(NamedTuple):
    mean: float
    std: float | None  # sample standard deviation (n - 1); None for a single seed

    @classmethod
    def over(cls, values: Sequence[float]) -> Statistic:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def percent(self) -> str:
        """The figure in percent with two decimals, "69.33" or "69.33 ± 0.71"."""
        return f"{100 * self.mean:.2f}" + ("" if self.std is None else f" ± {100 * self.std:.2f}")


Row = dict[str, Statistic]


def mean_row(rows: Rows) -> dict[str, float]:
    """Mean of each metric over the categories that have it, which may be some; without a metric that none has."""
    for name, row in rows.items():
        for metric, value in row.items():
            if metric not in HEADINGS:
                raise ValueError(f"{name}: unknown metric {metric!r}, expected one of {', '.join(HEADINGS)}")
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:  # NaN fails too
                raise ValueError(f"{name}: {metric} must be a fraction in 0..1, got {value}")
    values = {metric: [row[metric] for row in rows.values() if metric in row] for metric in HEADINGS}
    return {metric: fmean(of_categories) for metric, of_categories in values.items() if of_categories}


def summarise(runs: Sequence[Rows]) -> tuple[dict[str, Row], Row]:
    """Each category's metrics over the seeds, and those of the mean over categories; of what every seed has."""
    means = _over_seeds([mean_row(rows) for rows in runs])
    return {category: _over_seeds([rows[category] for rows in runs]) for category in runs[0]}, means


def headings_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The headings of METRICS, and those of the extra metrics that any of the rows has."""
    found = {metric for row in rows for metric in row}
    return {metric: heading for metric, heading in HEADINGS.items() if metric in found or metric not in EXTRA_HEADINGS}


def format_table(runs: Sequence[Rows]) -> str:
    """A row per category and a Mean row, in percent; below, which means are over some of the categories only.

    Extra metrics, where there are any, are in a second table.
    """
    categories, means = summarise(runs)
    extra = {metric: name for metric, name in headings_of(categories.values()).items() if metric in EXTRA_HEADINGS}
    lines = _format_columns(categories, means, COLUMNS)
    return "\n".join([*lines, *(_format_columns(categories, means, extra) if extra else [])])


def _format_columns(categories: Mapping[str, Row], means: Row, columns: Mapping[str, str]) -> list[str]:
    cells = [["Category", *columns.values()]]
    for name, row in [*categories.items(), ("Mean", means)]:
        cells.append([name, *(show(row.get(metric)) for metric in columns)])
    lines = align_columns(cells)
    rule = "-" * len(lines[0])
    table = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    for metric in columns:
        count = sum(metric in row for row in categories.values())
        if 0 < count < len(categories):
            table.append(f"Mean {columns[metric]} is over {count} of {len(categories)} categories.")
    return table


def format_published_protocol(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """A table of the epochs chosen on the test set, and how far they are above the result; `runs`, one for each seed,
    as `utils.runs.history.published_protocol` gives them, of the same categories."""
    cells = [["Category", "epoch", *COLUMNS.values(), *(f"{heading} gained" for heading in COLUMNS.values())]]
    for category in runs[0]:
        chosen = [run[category] for run in runs]
        best, gain = (_over_seeds([one[part] for one in chosen]) for part in ("metrics", "gain"))
        epochs = ", ".join(str(one["epoch"]) for one in chosen)
        cells.append([category, epochs, *(show(part.get(m)) for part in (best, gain) for m in COLUMNS)])
    head = "Published protocol: the epoch with the best I-AUROC on the test set. Not a result."
    return "\n".join([head, *align_columns(cells)])


def show(figure: Statistic | None) -> str:
    return ABSENT if figure is None else figure.percent()


def align_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of equal length: the first column to the left, the others to the right."""
    cells = [list(map(printable, row)) for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def write_csv(path: str | Path, runs: Sequence[Rows]) -> None:
    """A line per category and one named Mean, as fractions in full precision (the header says so).

    Every metric of `headings_of`; with several seeds a column of means and one of standard deviations for each.
    """
    categories, means = summarise(runs)
    columns = 2 if len(runs) > 1 else 1  # of a metric
    metrics = headings_of(categories.values())
    lines = [["category", *(name for m in metrics for name in (f"{m} [0..1]", f"{m} std")[:columns])]]
    for name, row in [*categories.items(), ("Mean", means)]:
        lines.append([name, *(value for m in metrics for value in row.get(m, ("", ""))[:columns])])
    write_text(path, "".join(map(csv_line, lines)))


def write_json(path: str | Path, runs: Sequence[Rows], info: Mapping[str, Any]) -> None:
    """Write what `to_json` gives, and `info`, plain built-ins: what the figures are of. Raises ValueError also if it
    has a key of the figures, or NaN, TypeError for what JSON has no word for."""
    results = to_json(runs)
    if taken := results.keys() & info.keys():
        raise ValueError(f"info must not have the keys {sorted(taken)}: they are the results' own")
    write_text(path, json_text({**results, **info}, indent=2) + "\n")


def to_json(runs: Sequence[Rows]) -> dict[str, Any]:
    """{"categories": rows, "mean": their mean}, as fractions in full precision.

    With several seeds rows and mean are means over these, and "std" holds their standard deviations in the same form.
    """
    categories, means = summarise(runs)

    def part(index: int) -> dict[str, Any]:
        rows = {name: {metric: figure[index] for metric, figure in row.items()} for name, row in categories.items()}
        return {"categories": rows, "mean": {metric: figure[index] for metric, figure in means.items()}}

    return part(0) | ({"std": part(1)} if len(runs) > 1 else {})


def _over_seeds(rows: Sequence[Mapping[str, float]]) -> Row:
    return {
        metric: Statistic.over([float(row[metric]) for row in rows])
        for metric in HEADINGS
        if all(metric in row for row in rows)
    }
