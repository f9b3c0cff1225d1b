"""Write VisA's meta.json from its official split file split_csv/1cls.csv.

    python scripts/visa_meta.py --data_root VisA

The reader works without meta.json too; other repositories need it. The images need not be there yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401
from datasets import visa_list
from datasets.names import printable
from datasets.plain_json import read_json
from utils.cli import CommandParser, run_command, user_path
from utils.system.files import write_text
from utils.system.own_files import refuse_foreign


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", type=user_path, required=True, help="the folder that holds split_csv/")
    return parser


def main() -> None:
    root = make_parser().parse_args().data_root
    entries = visa_list.read_csv(root / visa_list.CSV)
    meta = visa_list.build_meta(entries)
    advice = f"it is another list than {visa_list.CSV} gives; move it away to have it written"
    refuse_foreign([root / visa_list.META], lambda path: read_json(path) == meta, advice)
    write_text(root / visa_list.META, json.dumps(meta, indent=4) + "\n")
    counts = {split: sum(len(items) for items in meta[split].values()) for split in meta}
    listed = f"{len(meta['train'])} categories, {counts['train']} train, {counts['test']} test"
    print(f"wrote {printable(root / visa_list.META)}: {listed}")
    files = [file for entry in entries for file in (entry.image, entry.mask) if file]
    missing = sum(not (root / file).is_file() for file in files)
    if missing:
        print(f"note: {missing} of the {len(files)} listed images and masks are not on disk")


if __name__ == "__main__":
    run_command(main)
