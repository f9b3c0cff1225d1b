"""Add checked good photographs to a trained category, e.g. those that were wrongly rejected, without training it anew.

    python scripts/extend.py runs/NAME --good checked/
    python scripts/extend.py runs/NAME --undo                       # take away those that were added last

Memory and standardisation of robust models and PatchCore's memory are made again of the training images, which must be
where they were, and of these; the thresholds are set again by the images that training has kept out. For other models
the photographs are further good images for the thresholds. What was changed is kept in the run, and can be undone.
Export the model again afterwards.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets.names import printable
from datasets.problems import count
from train import NO_SETTINGS
from train import make_parser as train_parser
from utils.cli import CommandParser, add_workers_flag, run_command, user_path
from utils.data.finding import find_images
from utils.system.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("run", type=user_path, metavar="RUN", help="run folder of train.py; of several seeds each is extended")
    add("--good", nargs="+", metavar="IMAGES", help="good photographs: files, folders (with those in them), quoted "
        "patterns")
    add("--undo", action="store_true", help="take away the photographs that were added last")
    add("--category", metavar="NAME", help="category to extend (default: the run's only one)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ... (default auto)")
    add_workers_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    if bool(args.good) == args.undo:
        raise UsageError("give either `good` with photographs, or `undo`")
    from dataclasses import replace

    from utils.detection.detector import pick_category
    from utils.runs.folder import open_runs
    from utils.runs.resuming import lock_run, started_with
    from utils.system.processes import ALONE
    from utils.training.config import TrainConfig
    from utils.training.extending import config_for, extend, undo

    category, runs = pick_category(args.run, args.category), open_runs(args.run)
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(lock_run(run.folder))
        if args.undo:
            for run in runs:
                print(printable(f"{category} in {run.folder}: {count(undo(run, category), 'photograph')} taken away"))
            return
        photographs = find_images(args.good).all_paths()
        flags = vars(train_parser().parse_args(started_with(args.run)))
        known = {name: value for name, value in flags.items() if name not in NO_SETTINGS}
        config = replace(TrainConfig(**known), device=args.device, workers=args.workers)
        for run in runs:
            extension = extend(run, category, photographs, config_for(config, run, category).resolve(ALONE))
            print(printable(f"{extension} ({run.folder})"))


if __name__ == "__main__":
    run_command(lambda: main(make_parser().parse_args()))
