"""Convert between the authors' two checkpoint files and a run folder of ours, both ways.

    python scripts/convert_checkpoint.py from_official --stage1 stage1.pth --stage2 stage2.pth \
        --dataset mvtec --data_root data/mvtec --category bottle --run runs/official
    python scripts/convert_checkpoint.py to_official --run runs/official --category bottle --output official/bottle

A converted run is scored like any other: python test.py --data_root data/mvtec --run runs/official. The official files
hold tensors that the method never reads (layer4, fc, conv4, bn4): they are kept in checkpoints/<category>/unused.pt and
written back; a model of our own gets zeros there.
"""

from __future__ import annotations

import argparse
import copy
import sys
from datetime import datetime
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets import DATASETS
from datasets.names import printable
from models import WeightsError
from models.official import build_official, load_ours, read_official, split_official, to_official
from utils.checkpoint import (
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_tensors,
    stage_parts,
    stage_path,
    teacher_path,
)
from utils.cli import image_size, run_command, user_path
from utils.own_files import refuse_foreign
from utils.runs import CheckpointError, RunError, open_run, read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="direction", required=True)
    to_ours = commands.add_parser("from_official", help="official files -> run folder")
    to_ours.add_argument("--stage1", type=user_path, required=True, help="file with encoder_AT")
    to_ours.add_argument("--stage2", type=user_path, required=True, help="file with bn and decoder_ss")
    to_ours.add_argument("--dataset", choices=DATASETS, required=True, help="layout that the category belongs to")
    to_ours.add_argument("--data_root", type=user_path, required=True, help="where that data set lies, for test.py")
    to_ours.add_argument("--image_size", type=image_size, default=256, help="pixels (default 256)")
    to_theirs = commands.add_parser("to_official", help="run folder -> official files")
    to_theirs.add_argument("--output", type=user_path, required=True, help="folder for stage1.pth and stage2.pth")
    for command in (to_ours, to_theirs):
        command.add_argument("--category", required=True, help="category that the model was trained on")
        command.add_argument("--run", type=user_path, required=True, help="run folder")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.direction == "from_official":
        from_official(args)
    else:
        write_official(args)


def from_official(args: argparse.Namespace) -> None:
    ours, unused = split_official(read_official(args.stage1, args.stage2))
    model = build_official()
    load_ours(model, ours, source=f"{args.stage1} and {args.stage2}")
    settings = {
        "method": "aand",
        "backbone": "wide_resnet50_2",
        "weights": "official checkpoint",
        "image_size": args.image_size,
        "dataset": args.dataset,
        "data_root": str(args.data_root.resolve()),
        "command": "scripts/convert_checkpoint.py from_official",
        "started": datetime.now().isoformat(timespec="seconds"),
    }
    open_run(args.run, settings)
    if teacher_path(args.run).is_file():  # one teacher serves all categories of a run
        trunk = copy.deepcopy(model.pretrained.trunk)
        load_checkpoint(teacher_path(args.run), {"trunk": trunk}, settings)
        before = trunk.state_dict()
        if not all(torch.equal(tensor, before[name]) for name, tensor in model.pretrained.trunk.state_dict().items()):
            raise RunError(f"{args.stage1} has another teacher than the run in {args.run}; choose another --run")
    save_checkpoint(teacher_path(args.run), {"trunk": model.pretrained.trunk}, settings, seconds=0.0)
    for stage, parts in stage_parts(model).items():
        save_checkpoint(stage_path(args.run, args.category, stage), parts, settings, 0.0, args.category)
    save_tensors(unused_path(args.run, args.category), unused)
    print(printable(f"wrote {args.category} to {args.run}"))


def write_official(args: argparse.Namespace) -> None:
    paths = [args.output / name for name in ("stage1.pth", "stage2.pth")]
    refuse_foreign(paths, lambda _: False, "their format has no place for a mark: give another --output")
    model, _ = load_model(args.run, args.category, read_config(args.run))
    kept = unused_path(args.run, args.category)
    contents = to_official(model, read_official(kept) if kept.is_file() else None)
    for path, content in zip(paths, contents, strict=True):
        save_tensors(path, content)
    print(printable(f"wrote stage1.pth and stage2.pth to {args.output}"))


def unused_path(run: Path, category: str) -> Path:
    return stage_path(run, category, 1).with_name("unused.pt")


if __name__ == "__main__":
    run_command(main, WeightsError, CheckpointError, RunError)
