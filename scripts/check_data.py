"""Open every file of a data set and list all that is wrong with it.

    python scripts/check_data.py --data_root data/mvtec
    python scripts/check_data.py --data_root data/mvtec --categories bottle cable

Errors (train.py and test.py refuse them, or with --skip_bad go on without the images; train.py only warns of those in
test files alone, unless it needs these): files that cannot be read or are not there, masks of another size than their
image or without an image, images without their mask, anomalous test images that are training images too, good images
whose mask is not blank, folders whose names may mean good or a defect, folders and categories that cannot be used,
values that do not fit those of the training images. Warnings: masks without an anomalous pixel, of most of the image,
with grey parts that do not count or perhaps turned otherwise than their image, files of several images, images that are
there twice, may be masks, or have another depth than the training images, images and other files that are never used,
JPEG images beside others, defects without masks where the layout allows them. Before these, a line for each category
and split says how deep its images are, and which values they have; on stderr, what is not certain about the layout, and
the flag that decides.

Exit status: 0 without errors, 1 with errors, 2 for a wrong call. A file that has not changed is opened once only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets import open_dataset
from datasets.names import printable
from datasets.problems import ERROR, WARNING, count, warning
from utils.cli import CommandParser, add_file_flags, add_layout_flags, add_level_flag, run_command, user_path
from utils.data.check import check_source, describe_depths, levels_given


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__, allow_abbrev=True)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add_layout_flags(parser)
    add("--categories", nargs="+", metavar="NAME", help="categories to check (default: all)")
    add_level_flag(parser)
    add_file_flags(parser)
    return parser


def main() -> None:
    options = make_parser().parse_args()
    source = open_dataset(options.data_root, options.dataset, options.categories, options.good, options.bad)
    levels = levels_given(options.white_level, source.categories)
    checked = check_source(source, workers=options.workers, cache_dir=options.cache_dir, levels=levels)
    doubts = [warning("the layout is not certain", source.root, details=source.note)] if source.note else []
    problems, counts = [*doubts, *checked.problems], []
    print(*describe_depths(checked.samples, checked.images), sep="\n")
    for severity in (ERROR, WARNING):
        of_severity = [problem for problem in problems if problem.severity == severity]
        counts.append(count(len(of_severity), severity))
        for problem in of_severity:
            print(f"{severity}: {problem}")
    print(printable(f"{source.root} ({source.name}: {', '.join(source.categories)}): {' and '.join(counts)}"))
    if source.missing:
        print(printable(f"not on disk, not checked: {', '.join(source.missing)}"))
    if any(problem.severity == ERROR for problem in problems):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
