"""A category from files to results table as a user makes it, in plain mode and by default: seconds of each program.

    python benchmarks/end_to_end.py --data_root data/folder --category magnetic_tile --backbone resnet18 \\
        --output bench/magnetic_tile
    python benchmarks/end_to_end.py ... --source_size 900     # images enlarged to 900x900, where decoding counts
    python benchmarks/end_to_end.py ... --seeds 0 1 2         # three runs of each mode

Runs scripts/fore_extractor.py, train.py and test.py, mode by mode in turn; "plain" is train.py --plain and test.py
--batch_size 1. Seconds are those of the clock, start of Python included; all files were read once before. The output
folder gets end_to_end.json and, for each mode and seed, the run and what the programs print.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

from datasets import open_dataset
from datasets.anomalies.textures import find_aux_path, list_textures
from datasets.base import Sample, load_mask
from utils.cli import (
    at_least,
    image_size,
    run_command,
    user_path,
)
from utils.metrics.tables import ABSENT, COLUMNS
from utils.system.environment import code_version, environment
from utils.system.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
MODES: dict[str, tuple[list[str], list[str]]] = {  # flags of train.py and of test.py
    "plain": (["--plain"], ["--batch_size", "1"]),
    "default": ([], []),
}
PROGRAMS = ("scripts/fore_extractor.py", "train.py", "test.py")
JPEG_QUALITY = 95


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the category")
    add("--category", required=True, metavar="NAME", help="what is trained")
    add("--aux_path", metavar="DTD_IMAGES", help="textures, or 'builtin' (default: DTD beside the data set)")
    add("--backbone", default="resnet18", metavar="NAME", help="teacher (default resnet18)")
    add("--weights", default="default", metavar="W", help="as of train.py (default: default)")
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    add("--epochs", type=at_least(1), default=20, metavar="N", help="of each stage (default 20)")
    add("--source_size", type=at_least(1), metavar="N", help="first make a copy with all images enlarged to NxN")
    add("--modes", nargs="+", choices=MODES, default=list(MODES), help="in this order (default: plain default)")
    add("--seeds", type=at_least(0), nargs="+", default=[0], metavar="N", help="default 0")
    add("--output", type=user_path, required=True, metavar="DIR", help="a folder that is new or empty")
    return parser.parse_args()


def copy_enlarged(samples: list[Sample], root: Path, target: Path, size: int) -> None:
    """The samples' files, size x size: images bicubic in their own format, masks nearest neighbour as PNG."""

    def place(path: Path) -> Path:
        copied = target / path.relative_to(root)
        copied.parent.mkdir(parents=True, exist_ok=True)
        return copied

    def enlarge(sample: Sample) -> None:
        with Image.open(sample.image_path) as image:
            known = image if image.mode in ("L", "RGB") else image.convert("RGB")
            known.resize((size, size), Image.Resampling.BICUBIC).save(place(sample.image_path), quality=JPEG_QUALITY)
        if sample.mask_path:
            mask = Image.fromarray(255 * load_mask(sample.mask_path))
            mask.resize((size, size), Image.Resampling.NEAREST).save(place(sample.mask_path).with_suffix(".png"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(enlarge, samples))


def prepare_data(options: argparse.Namespace) -> Path:
    """The data set to use; its files, or their copies, and the textures have been read."""
    source = open_dataset(options.data_root, "auto", [options.category])
    if options.source_size and source.name == "visa":
        raise UsageError("--source_size copies folders, not VisA's lists of files")
    samples = source.samples(options.category, "train") + source.samples(options.category, "test")
    root = options.data_root
    if options.source_size:
        root = options.output / "data"
        copy_enlarged(samples, source.root, root, options.source_size)
    paths = [path for path in (root / options.category).rglob("*") if path.is_file()]
    for path in paths + list_textures(options.aux_path):
        path.read_bytes()  # or the first mode alone would wait for the disk
    return root


def run_mode(mode: str, seed: int, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each program, and the metrics."""
    folder = options.output / f"{mode}-seed{seed}"
    folder.mkdir()
    run, masks, (train_flags, test_flags) = folder / "run", folder / "fg_mask", MODES[mode]
    arguments = {
        "scripts/fore_extractor.py": ["--data_path", data, "--categories", options.category, "--output", masks],
        "train.py": [
            "--data_root", data, "--categories", options.category, "--aux_path", options.aux_path,
            "--backbone", options.backbone, "--weights", options.weights, "--image_size", options.image_size,
            "--epochs_stage1", options.epochs, "--epochs_stage2", options.epochs, "--seed", seed, "--fg_root", masks,
            "--output", run, *train_flags,
        ],
        "test.py": ["--data_root", data, "--run", run, *test_flags],
    }
    seconds = {}
    with (folder / "printed.txt").open("w", encoding="utf-8") as printed:
        for program in PROGRAMS:
            command = [sys.executable, os.path.relpath(ROOT / program), *map(str, arguments[program])]
            start = time.perf_counter()
            status = subprocess.run(command, stdout=printed, stderr=subprocess.STDOUT).returncode
            seconds[program] = time.perf_counter() - start
            if status:
                raise UsageError(f"{program} ended with {status}; what it printed is in {printed.name}")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    metrics = {name: results["categories"][options.category].get(name) for name in COLUMNS}
    return {"mode": mode, "seed": seed, "seconds": seconds, "total": sum(seconds.values()), "metrics": metrics}


def print_row(row: dict[str, Any]) -> None:
    cells = [f"{seconds:.1f}" for seconds in (*row["seconds"].values(), row["total"])]
    cells += [ABSENT if value is None else f"{100 * value:.2f}" for value in row["metrics"].values()]
    print(f"| {row['mode']} | {row['seed']} | {' | '.join(cells)} |", flush=True)


def find_ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Plain by default, of each program and of the total: medians over the seeds; empty if a mode is missing."""
    if {row["mode"] for row in rows} != set(MODES):
        return {}

    def middle(mode: str, name: str) -> float:
        return median((row["seconds"] | {"total": row["total"]})[name] for row in rows if row["mode"] == mode)

    return {name: middle("plain", name) / middle("default", name) for name in (*PROGRAMS, "total")}


def main() -> None:
    options = parse_args()
    options.aux_path = options.aux_path or str(find_aux_path(options.data_root))
    options.output.mkdir(parents=True, exist_ok=True)
    if any(options.output.iterdir()):
        raise UsageError(f"--output {options.output} is not empty, and a run that goes on cannot be timed")
    data = prepare_data(options)
    size = f", images {options.source_size}x{options.source_size}" if options.source_size else ""
    print(f"{options.category}{size}, {options.backbone}, {options.epochs} + {options.epochs} epochs, "
          f"{options.image_size} px; {', '.join(f'{name} {value}' for name, value in environment().items())}")
    print(f"| mode | seed | {' | '.join(f'{Path(program).stem}, s' for program in PROGRAMS)} | total, s "
          f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * (3 + len(PROGRAMS) + len(COLUMNS))}")
    rows = []
    for seed in options.seeds:
        for mode in options.modes:
            rows.append(run_mode(mode, seed, data, options))
            print_row(rows[-1])
    ratios = find_ratios(rows)
    if ratios:
        print(f"| plain / default | | {' | '.join(f'{ratio:.2f}' for ratio in ratios.values())} | | | |")
    names = ("category", "backbone", "image_size", "epochs", "source_size")
    content = {"settings": {name: getattr(options, name) for name in names}, "environment": environment(),
               "code": code_version(), "runs": rows, "ratios": ratios}
    (options.output / "end_to_end.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
