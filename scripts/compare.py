"""Compare scored runs category by category, the first one being what the others are measured against.

    python scripts/compare.py runs/rd4ad runs/aand
    python scripts/compare.py runs/a runs/b runs/c --metrics all --output comparison.md comparison.csv comparison.json

Reads the results.json files that test.py wrote, of all seeds of a run, and nothing else. Prints each run's mean ±
standard deviation over its seeds and, for each run after the first, the difference, the spread of the seeds and whether
the difference exceeds it; below, what else the runs differ in.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from utils.cli import CommandParser, run_command, user_path
from utils.metrics.tables import COLUMNS, HEADINGS, headings_of
from utils.results.comparison import compare, read_runs
from utils.results.comparison_report import format_text, writer_for
from utils.system.errors import UsageError
from utils.system.own_files import COMPARISON, begins_as, refuse_foreign


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("runs", type=user_path, nargs="+", metavar="RUN", help="run folder, or one of results alone")
    add("--metrics", nargs="+", choices=[*HEADINGS, "all"], default=list(COLUMNS), metavar="NAME",
        help=f"all, or some of {', '.join(HEADINGS)} (default {' '.join(COLUMNS)})")
    add("--output", type=user_path, nargs="+", default=[], metavar="FILE", help="files to write: .md, .csv or .json")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if len(args.runs) < 2:
        raise UsageError("give at least two run folders")
    writers = {path: writer_for(path) for path in args.output}
    for path in args.output:
        refuse_foreign([path], begins_as(COMPARISON[path.suffix.lower()]), "give another --output")
    runs = read_runs(args.runs)
    rows = (row for run in runs for seed in run.seeds for row in seed["categories"].values())
    wanted = headings_of(rows) if "all" in args.metrics else dict.fromkeys(args.metrics)
    comparison = compare(runs, list(wanted))
    print(format_text(comparison))
    for path, write in writers.items():
        write(path, comparison)


if __name__ == "__main__":
    run_command(main)
