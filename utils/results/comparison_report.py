"""A comparison of runs as text, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets.names import csv_line, json_text, printable
from utils.metrics.tables import ABSENT, HEADINGS, align_columns, show
from utils.results.comparison import CHOSEN_BY, Comparison, Difference, Entry
from utils.system.errors import UsageError
from utils.system.files import write_text

GAINS = "Not a result: points of I-AUROC above the result's, had the epoch been chosen on the test set."
CSV_FIELDS = {  # in a line of the file: its heading
    "category": "category", "metric": "metric", "run": "run", "seeds": "seeds", "mean": "mean [0..1]", "std": "std",
    "difference": "difference to the first run", "spread": "spread", "beyond_spread": "beyond spread", "p": "p",
    "gain": "best on test minus result (not a result)", "gain_std": "std of best on test minus result",
}


def writer_for(path: Path) -> Callable[[Path, Comparison], None]:
    """The function that writes a comparison to a file of this name; UsageError for a suffix that has none."""
    writers = {".md": write_markdown, ".csv": write_csv, ".json": write_json}
    if path.suffix.lower() not in writers:
        raise UsageError(f"`output` {path}: a file name must end in {', '.join(writers)}")
    return writers[path.suffix.lower()]


def format_text(comparison: Comparison) -> str:
    """Tables for a terminal, and the notes."""
    lines = align_columns(_figure_cells(comparison))
    rule, end = "-" * len(lines[0]), 1 + len(comparison.entries)
    notes = map(printable, [*comparison.notes, *_definitions(comparison)])
    parts = [lines[0], rule, *lines[1:end], rule, *lines[end:], *notes]
    if comparison.gains:
        parts += [GAINS, *align_columns(_gain_cells(comparison))]
    return "\n".join(parts)


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Tables that GitHub renders, and the notes as a list."""
    parts = [_markdown_table(_figure_cells(comparison), 2)]
    if comparison.notes:
        parts.append("\n".join(f"- {_escape(note)}" for note in comparison.notes))
    parts.append("\n".join(map(_escape, _definitions(comparison))))
    if comparison.gains:
        parts += [GAINS, _markdown_table(_gain_cells(comparison), 1)]
    write_text(path, "\n\n".join(parts) + "\n")


def write_csv(path: Path, comparison: Comparison) -> None:
    """A line per category (then Mean), metric and run; fractions in full precision, empty where not known."""
    rows = [CSV_FIELDS.values()]
    gains = {gain.category: _figures(comparison, gain) for gain in [*comparison.gains, *comparison.mean_gain]}
    for entry in [*comparison.entries, *comparison.means]:
        figures, differences = _figures(comparison, entry), _differences(comparison, entry)
        for name, seeds in zip(comparison.names, comparison.num_seeds, strict=True):
            gain = gains.get(entry.category, {}).get(name, {}) if entry.metric == CHOSEN_BY else {}
            line = {"category": entry.category, "metric": entry.metric, "run": name, "seeds": seeds}
            line |= figures.get(name, {}) | differences.get(name, {})
            line |= {"gain": gain.get("mean"), "gain_std": gain.get("std")}
            rows.append([line.get(field) for field in CSV_FIELDS])
    write_text(path, "".join(map(csv_line, rows)))


def write_json(path: Path, comparison: Comparison) -> None:
    """Fractions in full precision, a plain dict:

    seeds                {run: number of seeds}, the first run first
    categories           {category: {metric: {"runs": {run: figure}, "differences": {run: difference}}}}
    mean                 {metric: the same}
    best_on_test_gain    not a result: {"categories": {category: {run: figure}}, "mean": {run: figure}}
    notes                [what else the runs differ in]

    figure is {"values": [one a seed], "mean", "std"}, difference {"difference", "spread", "beyond_spread", "p"}: to the
    first run; null where not known. A run that lacks a figure is absent.
    """

    def both(entry: Entry) -> dict[str, Any]:
        return {"runs": _figures(comparison, entry), "differences": _differences(comparison, entry)}

    categories: dict[str, dict[str, Any]] = {}
    for entry in comparison.entries:
        categories.setdefault(entry.category, {})[entry.metric] = both(entry)
    gains = {gain.category: _figures(comparison, gain) for gain in comparison.gains}
    mean_gain = next((_figures(comparison, gain) for gain in comparison.mean_gain), {})
    content = {
        "seeds": dict(zip(comparison.names, comparison.num_seeds, strict=True)),
        "categories": categories,
        "mean": {entry.metric: both(entry) for entry in comparison.means},
        "best_on_test_gain": {"categories": gains, "mean": mean_gain},
        "notes": list(comparison.notes),
    }
    write_text(path, json_text(content, indent=2) + "\n")


def _figures(comparison: Comparison, entry: Entry) -> dict[str, dict[str, Any]]:
    """{run: {"values", "mean", "std"}} of the runs that have this figure."""
    columns = zip(comparison.names, entry.values, entry.statistics, strict=True)
    return {name: {"values": list(values), **found._asdict()} for name, values, found in columns if found}


def _differences(comparison: Comparison, entry: Entry) -> dict[str, dict[str, Any]]:
    """{run: {"difference", "spread", "beyond_spread", "p"}} of the further runs where both have this figure."""
    columns = zip(comparison.names[1:], entry.differences, strict=True)
    return {name: difference._asdict() for name, difference in columns if difference}


def _figure_cells(comparison: Comparison) -> list[list[str]]:
    """A heading, and a row per entry: each run's figure, then what is known of each further run's difference."""
    head = ["Category", "Metric", *comparison.names]
    for name in comparison.names[1:]:
        head += [f"{name}: difference", "spread", "beyond", "p"]
    rows = []
    for entry in [*comparison.entries, *comparison.means]:
        differences = [cell for difference in entry.differences for cell in _difference_cells(difference)]
        rows.append([entry.category, HEADINGS[entry.metric], *map(show, entry.statistics), *differences])
    return [head, *rows]


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return [ABSENT] * 4
    value, spread, beyond, p = difference
    points = f"{round(100 * value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"
    if spread is None:
        return [points, *[ABSENT] * 3]
    p_value = ABSENT if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"
    return [points, f"{100 * spread:.2f}", "yes" if beyond else "no", p_value]


def _gain_cells(comparison: Comparison) -> list[list[str]]:
    entries = [*comparison.gains, *comparison.mean_gain]
    return [["Category", *comparison.names], *([entry.category, *map(show, entry.statistics)] for entry in entries)]


def _definitions(comparison: Comparison) -> list[str]:
    return [
        f"Percent: mean ± sample standard deviation over seeds; differences to {comparison.names[0]} in points.",
        "Spread: the standard deviation of the difference of two single runs, √(std² of one + std² of the other).",
        f"p: Welch's t-test on the seeds' figures, two-sided. {ABSENT}: not known, as with a single seed.",
    ]


def _markdown_table(cells: Sequence[Sequence[str]], num_names: int) -> str:
    """The first `num_names` columns to the left, the others to the right."""
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * num_names + "---:|" * (len(cells[0]) - num_names), *lines[1:]])


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, no entities, no links, no further cells."""
    return "".join(f"\\{c}" if c in r"\|`*[]<>&" else c for c in printable(" ".join(text.split())))
