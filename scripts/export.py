"""Write a trained category as one file for production: image in, anomaly map and score out, without this code.

    python scripts/export.py runs/NAME --format onnx              # of its only category: runs/NAME/exported/bottle.onnx
    python scripts/export.py runs/NAME --category bottle --format openvino --output line/bottle.xml    # and bottle.bin
    python scripts/export.py runs/NAME --category bottle --format onnx --precision int8 --images good_parts

The file takes RGB images uint8 (N, H, W, 3) of any size; cropping, resize, contrast, normalisation, network, smoothing
and score are in it. docs/deployment.md says how it is run. Needs: pip install -r requirements-deploy.txt
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from utils.cli import CommandParser, add_model_flags, at_least, run_command, user_path
from utils.detection.model_file import PRECISIONS
from utils.export.formats import FORMATS, ExportSource, export
from utils.system.errors import UsageError

if TYPE_CHECKING:
    from utils.runs.folder import Run


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder of train.py")
    add_model_flags(parser, "written")
    kinds = ", ".join(f"{name} ({row.note})" if row.note else name for name, row in FORMATS.items())
    add("--format", choices=FORMATS, required=True, help=kinds)
    add("--output", type=user_path, metavar="FILE", help="file to write (default: "
        "RUN/exported/CATEGORY[.PRECISION] and the format's suffix)")
    add("--precision", choices=PRECISIONS, default="fp32", help="arithmetic, as far as the format has it; all but fp32 "
        "move scores (default fp32)")
    add("--images", type=user_path, metavar="DIR", help="images of good parts that int8 is measured on (default: the "
        "run's training images)")
    add("--image_count", type=at_least(1), default=32, metavar="N", help="how many of them (default 32)")
    return parser


def main(args: argparse.Namespace) -> None:
    from utils.detection.detector import pick_category, pick_seed
    from utils.runs.given import run_of_category
    from utils.system.own_files import is_export, refuse_foreign

    given, category = run_of_category(args.run, args.category, None)
    category = pick_category(given, category)
    run = pick_seed(given, args.seed)
    suffixes = FORMATS[args.format].suffixes
    name = category + ("" if args.precision == "fp32" else f".{args.precision}")
    path = args.output or run.folder / "exported" / f"{name}{suffixes[0]}"
    if path.suffix != suffixes[0]:
        raise UsageError(f"--output {path}: the name of a file of --format {args.format} must end in {suffixes[0]}")
    files = [path.with_suffix(suffix) for suffix in suffixes]
    refuse_foreign(files, lambda _: is_export(path), "move it away, or give another --output")
    say = teller()
    source = ExportSource.of(run.folder, category)
    images = good_images(run, category, args.images, args.image_count) if args.precision == "int8" else []
    export(source, args.format, path, args.precision, images, say)
    print("wrote " + " and ".join(f"{printable(file)} ({file.stat().st_size / 1e6:.1f} MB)" for file in files))


def teller() -> Callable[[str], None]:
    """A function that prints on stderr which phase begins, and how long those before it have taken."""
    started = time.perf_counter()

    def say(phase: str) -> None:
        seconds = round(time.perf_counter() - started)
        print(printable(phase) + (f" (after {seconds} s)" if seconds else ""), file=sys.stderr, flush=True)

    return say


def good_images(run: Run, category: str, folder: Path | None, most: int) -> list:
    """Decoded images of good parts, evenly from all in a folder, or from the run's training images."""
    from datasets.folders import look_into
    from datasets.unused import NESTED, find_unused

    if folder:
        paths = look_into(folder).images
        if not paths:
            raise UsageError(f"--images {folder}: there are no images in it")
        for problem in find_unused(folder, [folder], NESTED):
            print(f"{problem.severity}: {problem}", file=sys.stderr)
    else:
        paths = [sample.image_path for sample in run.settings.open_data([category]).samples(category, "train")]
    count, view = min(most, len(paths)), run.category(category).view
    return [view.load(paths[index * len(paths) // count]) for index in range(count)]


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
