"""Bring the finished runs of a sweep from its store to disk, where test.py, predict.py, report.py and compare.py take
them.

    python scripts/fetch_runs.py --store s3://bucket/sweep --output runs
    python scripts/fetch_runs.py --store s3://bucket/sweep --output one --tasks mvtec/aand/seed0/bottle

Makes a run folder OUTPUT/DATASET-METHOD with seedN/ in it, as train.py --seeds would have, and prints their names.
Every file is compared with the checksum that it was stored under.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.names import printable
from utils.cli import run_command, user_path
from utils.runs import RunError
from utils.store import Store, StoreError
from utils.sweep.results import gather


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--store", required=True, metavar="URL", help="path or URL that was given to sweep.py")
    add("--output", type=user_path, required=True, metavar="DIR", help="where run folders are made")
    add("--tasks", nargs="+", default=[], metavar="NAME", help="names as sweep.py --list prints them (default: all "
        "that are finished)")  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    print(*map(printable, gather(Store(args.store), args.output, keys=args.tasks)), sep="\n")


if __name__ == "__main__":
    run_command(main, RunError, StoreError)
