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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from utils.cli import (
    MAX_SEED,
    CommandParser,
    at_least,
    run_command,
    user_path,
)
from utils.detection.model_file import PRECISIONS
from utils.system.errors import UsageError

FORMATS = ("onnx", "openvino", "torchscript", "pt2")


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder of train.py")
    add("--category", metavar="NAME", help="category whose model is written (default: the run's only one)")
    add("--seed", type=at_least(0, MAX_SEED), metavar="N", help="of a run with several seeds (default: the first)")
    add("--format", choices=FORMATS, required=True, help="onnx, openvino (.xml with .bin beside it), torchscript "
        "(.pt), pt2 (torch.export)")
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
    from utils.export.formats import SUFFIXES, ExportSource, export
    from utils.runs.given import run_of_category
    from utils.system.own_files import is_export, refuse_foreign

    args.run, args.category = run_of_category(args.run, args.category, None)
    args.category = pick_category(args.run, args.category)
    args.run = pick_seed(args.run, args.seed)
    suffix = SUFFIXES[args.format]
    name = args.category + ("" if args.precision == "fp32" else f".{args.precision}")
    path = args.output or args.run / "exported" / f"{name}{suffix}"
    if path.suffix != suffix:
        raise UsageError(f"--output {path}: the name of a file of --format {args.format} must end in {suffix}")
    files = [path, path.with_suffix(".bin")] if args.format == "openvino" else [path]
    refuse_foreign(files, lambda _: is_export(path), "move it away, or give another --output")
    source = ExportSource.of(args.run, args.category)
    images = _good_images(args) if args.precision == "int8" else []
    export(source, args.format, path, args.precision, images)
    print("wrote " + " and ".join(f"{printable(file)} ({file.stat().st_size / 1e6:.1f} MB)" for file in files))


def _good_images(args: argparse.Namespace) -> list:
    """Decoded images of good parts, evenly from all there are."""
    from datasets import open_dataset
    from datasets.folders import look_into
    from datasets.unused import NESTED, find_unused
    from utils.runs.folder import Run

    if args.images:
        paths = look_into(args.images).images
        if not paths:
            raise UsageError(f"--images {args.images}: there are no images in it")
        for problem in find_unused(args.images, [args.images], NESTED):
            print(f"{problem.severity}: {problem}", file=sys.stderr)
    else:
        settings = Run(args.run).settings
        source = open_dataset(Path(settings.data_root), settings.dataset, [args.category])
        paths = [sample.image_path for sample in source.samples(args.category, "train")]
    count = min(args.image_count, len(paths))
    view = Run(args.run).category(args.category).view
    return [view.load(paths[index * len(paths) // count]) for index in range(count)]


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
