"""Score images of your own with a trained category: no data set, no labels, nothing of the training is needed.

    python scripts/predict.py runs/NAME photo.jpg
    python scripts/predict.py bottle.onnx photo.jpg                 # of scripts/export.py: runs without torch
    python scripts/predict.py runs/NAME photos/ "more/*.png" --category bottle --output scores.csv --save_maps maps
    python scripts/predict.py runs/NAME photos/ --far 0.05          # more false alarms, fewer misses
    python scripts/predict.py runs/NAME --watch incoming/ --output scores.jsonl     # what arrives, until stopped

Prints a line per image, or with --output writes them to the file: score, p-value, whether it is anomalous, and where.
Thresholds are those of train.py --calibration or scripts/calibrate.py; without, there are scores only. An image that
cannot be read does not stop the others: it is named at the end, and the exit status is 1. So are folders that cannot be
looked into, and in folders all files but hidden ones and those that are certainly no images (.txt, .csv, .json, ...),
which are named only. Links to folders are followed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from datasets.problems import count
from utils.cli import (
    CommandParser,
    add_computing_flags,
    add_look_flag,
    add_model_flags,
    add_size_flag,
    add_workers_flag,
    at_least,
    number,
    run_command,
    share,
    user_path,
)
from utils.data.finding import find_images
from utils.system.errors import UsageError, command
from utils.system.signals import Interrupted

if TYPE_CHECKING:
    from utils.detection.detector import Detector
    from utils.detection.files import Writer
    from utils.detection.pictures import Kind


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("model", type=user_path, metavar="RUN_OR_MODEL", help="run folder of train.py, an .onnx or .xml file of "
        "scripts/export.py, or folder with the public code's checkpoints_Stage1/ and checkpoints_Stage2/")
    add("images", nargs="*", metavar="IMAGES", help="files, folders (with those in them), quoted patterns (** too)")
    add("--watch", type=user_path, metavar="DIR", help="score images as they arrive in a folder, until stopped, each "
        "once: a line of JSON for each, to --output (.jsonl), by which a restart knows what is done, or to the screen")
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
    add("--report", type=user_path, metavar="FILE", help="write one HTML page that opens offline: the images with the "
        "highest scores beside their heat maps")
    add("--report_images", type=at_least(1), default=200, metavar="N", help="images on that page (default 200)")
    add("--maps_raw", type=user_path, metavar="DIR", help="write anomaly maps as numbers, at the images' size: TIFF "
        "files of float32")
    add("--masks", type=user_path, metavar="DIR", help="write masks of the regions, at the images' size: PNG files of "
        "0 and 255; those of good images are 0 everywhere")
    add_computing_flags(parser)
    add_workers_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from utils.detection.files import predict_files
    from utils.detection.output import leave_out_own, picture_targets, refuse_other_targets, writer_for
    from utils.detection.pictures import KINDS, Pictures
    from utils.detection.rates import check_look
    from utils.system.memory import keep_freed_memory

    check_look(args.far, args.look)
    if bool(args.images) == bool(args.watch):
        raise UsageError("give either IMAGES or `watch` with a folder")
    if args.watch and args.report:
        raise UsageError("`report` is a page of images that are given, not of a folder that is watched")
    keep_freed_memory()
    folders = {kind: getattr(args, kind.argument) for kind in KINDS}
    if args.watch:
        from utils.detection.watching import check_watch

        check_watch(args.watch, folders)
        watch_folder(args, open_detector(args), folders)
        return
    files = find_images(args.images)
    files.paths, left_out = leave_out_own(files.paths, args.images)
    writer, targets = writer_for(args.output), picture_targets(files.paths, folders)
    refuse_other_targets(files.paths, args.output, targets)
    detector = open_detector(args)
    if args.report:
        writer = page_writer(args, writer, detector)
    summary = predict_files(detector, files, writer, Pictures(targets), args.workers)
    if left_out:
        print(f"left out: {count(left_out, 'picture')} that this program wrote (maps, masks)", file=sys.stderr)
    summary.print()
    if files.note():
        print(files.note(), file=sys.stderr)
    if summary.errors:
        print("\n".join(f"error: {error}" for error in summary.errors), file=sys.stderr)
        sys.exit(1)


def open_detector(args: argparse.Namespace) -> Detector:
    """The detector with the thresholds asked for; stderr says how to set some where there are none."""
    from utils.detection import load_detector
    from utils.runs.given import run_of_category

    model, category = run_of_category(args.model, args.category, args.image_size)
    detector = load_detector(model, category, args.seed, args.device, args.batch_size)
    if args.far is not None or args.look is not None:
        detector = detector.at(args.far, args.look)
    if args.threshold is not None:
        detector = replace(detector, threshold=args.threshold)
    if detector.image_threshold is None:
        run, then = (model, "") if model.is_dir() else ("RUN", ", and export it again")
        which = ["--categories", category] if category else []
        setting = command("scripts/calibrate.py", run, "--images", "DIR", *which)
        if args.masks:
            raise UsageError(f"`masks` need a threshold: give `threshold`, or set one with: {setting}{then}")
        print(f"no thresholds, scores only; set them with: {setting}{then}", file=sys.stderr)
    return detector


def page_writer(args: argparse.Namespace, writer: Writer, detector: Detector) -> Writer:
    """The writer that also writes the page of --report."""
    from utils.report.predictions import with_page
    from utils.system.own_files import PREDICTION_PAGE, begins_as, refuse_foreign

    refuse_foreign([args.report], begins_as(PREDICTION_PAGE), "give another `report`")
    return with_page(writer, args.report, detector, args.report_images)


def watch_folder(args: argparse.Namespace, detector: Detector, folders: dict[Kind, Path | None]) -> None:
    """Watch until the program is stopped, which is its usual end: exit status 0 for Ctrl-C."""
    from utils.detection.files import Summary
    from utils.detection.watching import watch

    print(printable(f"watching {args.watch}; Ctrl-C ends it"), file=sys.stderr)
    summary, started = Summary(), time.perf_counter()
    try:
        watch(detector, args.watch, args.output, folders, args.workers, summary)
    except Interrupted as interrupted:
        summary.seconds = time.perf_counter() - started
        summary.print()
        if interrupted.number != signal.SIGINT:
            raise


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
