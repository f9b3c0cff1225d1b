"""Set the thresholds of a trained category by good images that training has not seen, or for another rate.

    python scripts/calibrate.py runs/NAME --images good/ --far 0.01
    python scripts/calibrate.py runs/NAME --far 0.05                # from the scores of before, of every category

Writes checkpoints/<category>/thresholds.json into the run, of every seed. What the rate promises, and of which images:
docs/own_data.md. train.py --calibration does the same at once, with a share of the training images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from utils.cli import CommandParser, add_computing_flags, add_look_flag, add_workers_flag, run_command, share, user_path


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder of train.py")
    add("--images", nargs="+", metavar="IMAGES", help="good images: files, folders (with those in them), quoted "
        "patterns (default: the scores of before)")
    add("--categories", nargs="+", metavar="NAME", help="categories to set (default: all that have thresholds; with "
        "--images: the run's only one)")
    add("--far", type=share, default=0.01, metavar="X", help="share of good images that may be called anomalous, on "
        "average (default 0.01)")
    add_look_flag(parser)
    add_computing_flags(parser)
    add_workers_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from utils.detection.calibration import calibrate_run, move_thresholds
    from utils.detection.rates import check_look

    check_look(args.far, args.look)

    if args.images:
        written = calibrate_run(
            args.run, args.images, args.far, args.look, categories=args.categories, device=args.device,
            batch_size=args.batch_size, workers=args.workers,
        )
    else:
        written = move_thresholds(args.run, args.far, args.look, categories=args.categories, device=args.device)
    for folder, category, thresholds in written:
        print(printable(f"{category} in {folder}: {thresholds}"))


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
