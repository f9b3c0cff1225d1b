"""Bring the finished runs of a sweep from its store to disk, where test.py, predict.py, report.py and compare.py take
them.

    python scripts/fetch_runs.py --store s3://bucket/sweep --output runs
    python scripts/fetch_runs.py --store s3://bucket/sweep --output one --tasks mvtec/aand/seed0/bottle

Makes a run folder OUTPUT/DATASET-METHOD with seedN/ in it, as train.py --seeds would have, and prints their names.
Every file is compared with the checksum that it was stored under. A task that cannot be used does not stop the others:
it is named at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from utils.cli import CommandParser, run_command, user_path
from utils.sweep.attempts import completed_keys
from utils.sweep.gather import gather
from utils.sweep.store import Store


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--store", required=True, metavar="URL", help="path or URL that was given to sweep.py")
    add("--output", type=user_path, required=True, metavar="DIR", help="where run folders are made")
    add("--tasks", nargs="+", default=[], metavar="NAME", help="names as sweep.py --list prints them (default: all "
        "that are finished)")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    store = Store(args.store)
    runs, skipped = gather(store, args.output, keys=args.tasks)
    finished = completed_keys(store) if args.tasks else []
    skipped |= {task: "it is not finished" for task in args.tasks if task not in finished}
    print(*map(printable, runs), sep="\n")
    for task, reason in skipped.items():
        print(f"error: {printable(task)}: {reason}", file=sys.stderr)
    sys.exit(bool(skipped))


if __name__ == "__main__":
    run_command(main)
