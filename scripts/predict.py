"""Score images of your own with a trained category: no data set, no labels, nothing of the training is needed.

    python scripts/predict.py runs/NAME photo.jpg
    python scripts/predict.py bottle.onnx photo.jpg                 # of scripts/export.py: runs without torch
    python scripts/predict.py runs/NAME photos/ "more/*.png" --category bottle --output scores.csv --save_maps maps
    python scripts/predict.py runs/NAME photos/ --far 0.05          # more false alarms, fewer misses

Prints a line per image, or with --output writes them to the file: score, p-value, whether it is anomalous, and where.
Thresholds are those of train.py --calibration or scripts/calibrate.py; without, there are scores only. An image that
cannot be read does not stop the others: it is named at the end, and the exit status is 1. So are folders that cannot be
looked into, and in folders all files but hidden ones and those that are certainly no images (.txt, .csv, .json, ...),
which are named only. Links to folders are followed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from utils.cli import (
    CommandParser,
    add_computing_flags,
    add_look_flag,
    add_model_flags,
    add_size_flag,
    add_workers_flag,
    number,
    run_command,
    share,
    user_path,
)


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("model", type=user_path, metavar="RUN_OR_MODEL", help="run folder of train.py, an .onnx or .xml file of "
        "scripts/export.py, or folder with the public code's checkpoints_Stage1/ and checkpoints_Stage2/")
    add("images", nargs="+", metavar="IMAGES", help="files, folders (with those in them), quoted patterns (** too)")
    add_model_flags(parser)
    add_size_flag(parser)
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument("--far", type=share, metavar="X", help="share of good images that may be called anomalous "
                           "(default: what the thresholds were set for)")
    add_look_flag(parser)
    threshold.add_argument("--threshold", type=number, metavar="T", help="a threshold of your own for scores and maps")
    add("--output", type=user_path, metavar="FILE", help="write predictions to a .csv or .jsonl file, as they come")
    add("--save_maps", type=user_path, metavar="DIR", help="write heat maps beside the images, at their size, the "
        "regions of anomalous ones outlined, to DIR/<path below the images' common folder>.png")
    add_computing_flags(parser)
    add_workers_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from datasets.problems import count
    from utils.data.finding import find_images
    from utils.detection import load_detector
    from utils.detection.files import predict_files
    from utils.detection.output import leave_out_own, map_targets, refuse_other_targets, writer_for
    from utils.detection.rates import check_look
    from utils.runs.given import run_of_category
    from utils.system.errors import command
    from utils.system.memory import keep_freed_memory

    check_look(args.far, args.look)
    keep_freed_memory()
    files = find_images(args.images)
    files.paths, left_out = leave_out_own(files.paths, args.images)
    writer, maps = writer_for(args.output), map_targets(files.paths, args.save_maps)
    refuse_other_targets(files.paths, args.output, maps.values())
    args.model, category = run_of_category(args.model, args.category, args.image_size)
    detector = load_detector(args.model, category, args.seed, args.device, args.batch_size)
    if args.far is not None or args.look is not None:
        detector = detector.at(args.far, args.look)
    if args.threshold is not None:
        detector = replace(detector, threshold=args.threshold)
    summary = predict_files(detector, files, writer, maps, args.workers)
    if left_out:
        print(f"left out: {count(left_out, 'picture')} that this program wrote (maps, masks)", file=sys.stderr)
    print(summary.text(), file=sys.stderr)
    summary.notes.print()
    if files.note():
        print(files.note(), file=sys.stderr)
    if detector.image_threshold is None:
        run, then = (args.model, "") if args.model.is_dir() else ("RUN", ", and export it again")
        which = ["--categories", category] if category else []
        setting = command("scripts/calibrate.py", run, "--images", "DIR", *which)
        print(f"no thresholds, scores only; set them with: {setting}{then}", file=sys.stderr)
    if summary.errors:
        print("\n".join(f"error: {error}" for error in summary.errors), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
