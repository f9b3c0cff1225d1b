"""Write the report of a run: one HTML file with tables, curves and a gallery, that opens offline.

    python scripts/report.py runs/NAME
    python scripts/report.py runs/NAME --data_root data/mvtec --output report.html

Shows the results, image scores with a threshold to move, ROC and PRO, the course of training, what Stage I does to
synthetic anomalies, and the test images, worst first. Where a category has thresholds, it is judged by these, until the
threshold is moved. Needs the run's checkpoints and its data.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from utils.cli import CommandParser, add_inference_flags, at_least, run_command, user_path


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder of train.py")
    add("--data_root", type=user_path, metavar="DIR", help="folder that holds the categories (default: as in training)")
    add("--categories", nargs="+", metavar="NAME", help="categories to show (default: all that were trained)")
    add("--images", type=at_least(1), default=200, metavar="N", help="test images of a category in the gallery, the "
        "worst first (default 200)")
    add("--output", type=user_path, metavar="FILE", help="HTML file to write (default RUN/report.html)")
    add_inference_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from utils.report.build import write_report
    from utils.results.scoring import Scoring, open_test_data
    from utils.runs.folder import open_runs
    from utils.system.device import pick_device
    from utils.system.memory import keep_freed_memory
    from utils.system.own_files import REPORT, begins_as, refuse_foreign

    keep_freed_memory()
    output = args.output or args.run / "report.html"
    refuse_foreign([output], begins_as(REPORT), "give another --output")
    data_root = args.data_root or Path(open_runs(args.run)[0].settings.data_root)
    data = open_test_data(
        args.run, data_root, categories=args.categories, workers=args.workers, cache_dir=args.cache_dir,
        skip_bad=args.skip_bad,
    )
    options = Scoring(
        device=pick_device(args.device), command=shlex.join(["python", *sys.argv]), batch_size=args.batch_size,
        workers=args.workers, cache=args.cache, cache_dir=args.cache_dir, skipped=data.skipped,
        decoded=data.decoded,
    )
    write_report(output, args.run, data.samples, data.source.root, options, args.images)
    print(f"{printable(output)} ({output.stat().st_size / 1e6:.1f} MB); open it in a browser")


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
