"""Convert between the authors' checkpoint files and a run folder of ours, both ways.

    python scripts/convert_checkpoint.py from_official --checkpoints AAND --data_root data/mvtec --run runs/official
    python scripts/convert_checkpoint.py from_official --stage1 stage1.pth --stage2 stage2.pth \
        --data_root data/mvtec --category bottle --run runs/official
    python scripts/convert_checkpoint.py to_official --run runs/official --category bottle --output official/bottle

--checkpoints is the folder that holds checkpoints_Stage1/ and checkpoints_Stage2/ with a file wres50_<category>.pth for
each category; test.py and predict.py take it as it is, too. A converted run is scored like any other: python test.py
--data_root data/mvtec --run runs/official. The official files hold tensors that the method never reads (layer4, fc,
conv4, bn4): they are kept in checkpoints/<category>/unused.pt and written back; a model of our own gets zeros there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets import DATASETS, detect_layout
from datasets.names import misfit_of, printable
from utils.cli import CommandParser, image_size, run_command, user_path
from utils.runs.folder import Run
from utils.runs.resuming import check_settings
from utils.system.errors import UsageError
from utils.system.own_files import refuse_foreign

UNUSED = "unused.pt"  # of a category: tensors that the method never reads


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    commands = parser.add_subparsers(dest="direction", required=True)
    to_ours = commands.add_parser("from_official", help="official files -> run folder", allow_abbrev=True)
    to_ours.add_argument("--checkpoints", type=user_path, metavar="DIR", help="folder with checkpoints_Stage1/ and "
                         "checkpoints_Stage2/, of all categories or that of --category")
    to_ours.add_argument("--stage1", type=user_path, help="in its place: file with encoder_AT, of --category")
    to_ours.add_argument("--stage2", type=user_path, help="and file with bn and decoder_ss")
    to_ours.add_argument("--dataset", choices=["auto", *DATASETS], default="auto", help="layout of the data (auto: "
                         "decided by looking into --data_root)")
    to_ours.add_argument("--data_root", type=user_path, required=True, help="where that data set lies, for test.py")
    to_ours.add_argument("--image_size", type=image_size, default=256, help="pixels (default 256)")
    to_theirs = commands.add_parser("to_official", help="run folder -> official files", allow_abbrev=True)
    to_theirs.add_argument("--output", type=user_path, required=True, help="folder for stage1.pth and stage2.pth")
    for command, needed in ((to_ours, False), (to_theirs, True)):
        command.add_argument("--category", required=needed, help="category that the model was trained on")
        command.add_argument("--run", type=user_path, required=True, help="run folder")
    return parser


def main(args: argparse.Namespace) -> None:
    if args.direction == "from_official":
        from_official(args)
    else:
        write_official(args)


def from_official(args: argparse.Namespace) -> None:
    from utils.runs.checkpoint import save_tensors
    from utils.runs.given import find_checkpoints, official_folder
    from utils.runs.official import convert, official_settings

    if args.category is not None and (reason := misfit_of(args.category)):
        raise UsageError(f"--category {printable(args.category)}: {reason}")
    single = (args.stage1, args.stage2)
    if args.checkpoints and not any(single):
        folder = official_folder(args.checkpoints) or args.checkpoints
        files = find_checkpoints(folder, args.category and [args.category])
    elif all(single) and args.category and not args.checkpoints:
        files = {args.category: single}
    else:
        raise UsageError("give --checkpoints, or all of --stage1, --stage2 and --category")
    dataset = detect_layout(args.data_root) if args.dataset == "auto" else args.dataset
    settings = official_settings(dataset, str(args.data_root.resolve()), args.image_size)
    check_settings(args.run, settings)
    for name, pair in files.items():
        category = Run(args.run).category(name)
        save_tensors(category.folder / UNUSED, convert(pair, category, settings))
        print(f"wrote {printable(name)} to {printable(args.run)}")


def write_official(args: argparse.Namespace) -> None:
    from models.official import read_official, to_official
    from utils.runs.checkpoint import save_tensors

    paths = [args.output / name for name in ("stage1.pth", "stage2.pth")]
    refuse_foreign(paths, lambda _: False, "their format has no place for a mark: give another --output")
    category = Run(args.run).category(args.category)
    model, _ = category.load_model()
    kept = category.folder / UNUSED
    contents = to_official(model, read_official(kept) if kept.is_file() else None)
    for path, content in zip(paths, contents, strict=True):
        save_tensors(path, content)
    print(f"wrote stage1.pth and stage2.pth to {printable(args.output)}")


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
