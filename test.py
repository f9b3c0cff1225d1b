"""Score a run of train.py on the test set: one row per category, and a Mean row.

    python test.py --data_root data/mvtec                        # the newest run of that data set
    python test.py --data_root data/mvtec --run runs/NAME --save_maps
    python test.py --data_root data/mvtec --run runs/NAME --resolution native --mvtec_maps maps

Prints I-AUROC, P-AUROC and PRO in percent; writes every metric to results.csv and results.json (fractions, full
precision) in the run folder and, with --save_maps, heat maps over the images into its maps/ folder. A run of several
seeds gets mean and standard deviation.
"""

from __future__ import annotations

import argparse
import sys

from utils.cli import add_inference_flags, pick_device, run_model_command, user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add("--run", type=user_path, metavar="DIR", help="run folder of train.py (default: newest of this data in runs/)")
    add("--categories", nargs="+", metavar="NAME", help="categories to score (default: all that were trained)")
    add("--save_maps", action="store_true", help="write heat maps over the images, ground truth outlined")
    add("--resolution", choices=["image_size", "native"], default="image_size", help="native: pixel metrics also at "
        "each mask's own resolution, maps enlarged bilinearly (default: at the run's image size only)")  # fmt: skip
    add("--mvtec_maps", type=user_path, metavar="DIR", help="write the anomaly maps for MVTec's evaluation scripts: "
        "float TIFFs of the images' size, DIR/<object>/test/<defect>/<image>.tiff")  # fmt: skip
    add_inference_flags(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from datasets.problems import first_of
    from utils.memory import keep_freed_memory
    from utils.runs import newest_run
    from utils.scoring import Scoring, open_test_data, score_run

    keep_freed_memory()
    device = pick_device(args.device)
    run = args.run or newest_run(args.data_root)
    source, samples, skipped = open_test_data(run, args.data_root, args)
    how = Scoring(
        device, args.batch_size, args.workers, args.cache, args.cache_dir, native=args.resolution == "native",
        heat_maps=args.save_maps, mvtec_maps=args.mvtec_maps, skipped=skipped,
    )  # fmt: skip
    print(score_run(run, samples, source.root, how))
    if how.unwritten:
        print("\n".join(f"error: {line}" for line in first_of(how.unwritten)), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_model_command(main, parse_args())
