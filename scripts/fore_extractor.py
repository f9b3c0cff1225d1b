"""Store the foreground masks of a data set's training images; Stage I paints its synthetic anomalies inside them.

    python scripts/fore_extractor.py --data_path data/mvtec
    python scripts/fore_extractor.py --data_path data/visa --categories candle pcb1 --output fg_mask

Writes <output>/<dataset>/<category>/train/<name>.png (0 = background, 255 = foreground) at the images' full size.
Training makes masks that are missing on the fly, by the same rules.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401

# isort: split
import cv2
import numpy as np
from tqdm import tqdm

from datasets import open_dataset
from datasets.base import is_deep, load_image, read_picture
from datasets.foreground import Rule, fg_mask_path, foreground_mask, rule_for
from datasets.levels import Levels
from datasets.marks import FOREGROUND, mark_of, png_bytes
from datasets.names import printable
from utils.cli import CommandParser, add_layout_flags, add_level_flag, at_least, run_command, user_path
from utils.system.files import atomic_write, in_parallel
from utils.system.own_files import holds, refuse_foreign

Job = tuple[Path, Path, Rule, Levels]  # of an image, and of its mask


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__.split("\n", 1)[0], allow_abbrev=True)
    parser.add_argument("--data_path", type=user_path, required=True, help="the data set: the folder of its categories")
    parser.add_argument("--aux_path", help="ignored; accepted so that train.py's paths can be given as they are")
    add_layout_flags(parser)
    parser.add_argument("--categories", nargs="+", help="only these (default: all)")
    parser.add_argument("--output", type=user_path, default=Path("fg_mask"), help="where to write (default: fg_mask)")
    parser.add_argument("--workers", type=at_least(1), default=os.cpu_count(), help="threads (default: one per core)")
    add_level_flag(parser)
    return parser


def refuse_others(jobs: list[Job]) -> None:
    """UsageError if a mask to be written is there and not ours. Those that earlier versions wrote have no mark: where
    the same mask comes out again, nothing is lost."""

    def is_ours(mask_path: Path) -> bool:
        if mark_of(mask_path) == FOREGROUND:
            return True
        image_path, _, rule, levels = of[mask_path]
        return holds(mask_path, foreground_mask(load_image(image_path, levels=levels), rule) * np.uint8(255))

    of = {job[1]: job for job in jobs}
    refuse_foreign(of, is_ours, "move it away, or give another --output")


def levels_of(paths: Sequence[Path], workers: int) -> Levels:
    """Levels by which training images become grey. Those of 8 bits are not decoded for it."""
    deep = [path for path in paths if is_deep(path)]
    return Levels.of(in_parallel(lambda path: read_picture(path).range, deep, workers))


def extract(jobs: list[Job], workers: int) -> None:
    """Make and write the masks of jobs in `workers` threads, with a progress bar."""

    def run(job: Job) -> None:
        image_path, mask_path, rule, levels = job
        mask = foreground_mask(load_image(image_path, levels=levels), rule)
        with atomic_write(mask_path) as temporary:
            temporary.write_bytes(png_bytes(mask * np.uint8(255), FOREGROUND))

    cv2.setNumThreads(1)  # the pool has the cores
    for _ in tqdm(in_parallel(run, jobs, workers), total=len(jobs), desc="foreground masks", unit="image"):
        pass


def main() -> None:
    options = make_parser().parse_args()
    source = open_dataset(options.data_path, options.dataset, options.categories, options.good, options.bad)
    if source.note:
        print(f"note: {source.note}", file=sys.stderr)
    jobs = []
    for category in source.categories:
        paths = [sample.image_path for sample in source.samples(category, "train")]
        levels = levels_of(paths, options.workers) if options.white_level is None else Levels.up_to(options.white_level)
        rule = rule_for(source.name, category)
        jobs += [(path, fg_mask_path(options.output, source.name, category, path), rule, levels) for path in paths]
    if source.missing:
        print(printable(f"not on disk, skipped: {', '.join(source.missing)}"), file=sys.stderr)
    refuse_others(jobs)
    extract(jobs, options.workers)
    folder = options.output / source.name
    print(printable(f"wrote {len(jobs)} masks to {folder} (categories: {', '.join(source.categories)})"))


if __name__ == "__main__":
    run_command(main)
