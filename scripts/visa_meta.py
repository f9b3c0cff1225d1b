"""Write VisA's meta.json from its official split file split_csv/1cls.csv.

    python scripts/visa_meta.py --data_root VisA

The reader works without meta.json too; other repositories need it. The images need not be there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets import visa
from datasets.base import DataError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", type=Path, required=True, help="VisA's folder, the one that holds split_csv/")
    return parser.parse_args()


def write_atomically(path: Path, text: str) -> None:
    """Write to a file beside `path`, then move it into place, so that `path` is never half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    root = parse_args().data_root
    entries = visa.read_csv(root / visa.CSV)
    meta = visa.build_meta(entries)
    write_atomically(root / visa.META, json.dumps(meta, indent=4) + "\n")
    counts = {split: sum(len(items) for items in meta[split].values()) for split in meta}
    print(f"wrote {root / visa.META}: {len(meta['train'])} categories, {counts['train']} train, {counts['test']} test")
    files = [file for entry in entries for file in (entry.image, entry.mask) if file]
    missing = sum(not (root / file).is_file() for file in files)
    if missing:
        print(f"note: {missing} of the {len(files)} listed images and masks are not on disk")


if __name__ == "__main__":
    try:
        main()
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
