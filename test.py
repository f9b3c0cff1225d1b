"""Score a run of train.py on the test set: one row per category, and a Mean row.

    python test.py --data_root data/mvtec                        # the newest run of that data set
    python test.py --data_root data/mvtec --run runs/NAME --save_maps
    python test.py --data_root data/mvtec --run runs/NAME --resolution native --mvtec_maps maps
    python test.py --data_root data/mvtec --run AAND             # checkpoints_Stage1/, checkpoints_Stage2/ in AAND

Prints I-AUROC, P-AUROC and PRO in percent; writes every metric to results.csv and results.json (fractions, full
precision), a line per image to scores.csv and, with --save_maps, heat maps over the images to maps/, all in the run
folder. A run of several seeds gets mean and standard deviation.
"""

from __future__ import annotations

import argparse
import shlex
import sys

import utils.system.missing  # noqa: F401
from utils.cli import CommandParser, add_inference_flags, add_size_flag, run_command, user_path


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add("--run", type=user_path, metavar="DIR", help="run folder of train.py, or folder with the public code's "
        "checkpoints_Stage1/ and checkpoints_Stage2/ (default: newest of this data in runs/)")
    add("--categories", nargs="+", metavar="NAME", help="categories to score (default: all that were trained)")
    add_size_flag(parser)
    add("--save_maps", action="store_true", help="write heat maps over the images, ground truth outlined")
    add("--resolution", choices=["image_size", "native"], default="image_size", help="native: pixel metrics also at "
        "each mask's own resolution, maps enlarged bilinearly (default image_size: at the run's alone)")
    add("--mvtec_maps", type=user_path, metavar="DIR", help="write the anomaly maps for MVTec's evaluation scripts: "
        "float TIFFs of the images' size, DIR/<object>/test/<defect>/<image>.tiff")
    add_inference_flags(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from datasets import check_root
    from datasets.problems import first_of
    from utils.runs.given import run_to_score
    from utils.system.memory import keep_freed_memory

    check_root(args.data_root)  # torch takes seconds to import, a wrong path is told at once
    run, args.categories = run_to_score(args.run, args.data_root, args.categories, args.image_size)
    from utils.results.scoring import Scoring, open_test_data, score_run
    from utils.system.device import pick_device

    keep_freed_memory()
    device = pick_device(args.device)
    data = open_test_data(
        run, args.data_root, categories=args.categories, workers=args.workers, cache_dir=args.cache_dir,
        skip_bad=args.skip_bad,
    )
    scored = score_run(run, data.samples, data.source.root, Scoring(
        device=device, command=shlex.join(["python", *sys.argv]), batch_size=args.batch_size, workers=args.workers,
        cache=args.cache, cache_dir=args.cache_dir, native=args.resolution == "native", heat_maps=args.save_maps,
        mvtec_maps=args.mvtec_maps, skipped=data.skipped, decoded=data.decoded,
    ))
    print(scored.tables)
    if scored.unwritten:
        print("\n".join(f"error: {line}" for line in first_of(scored.unwritten)), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
