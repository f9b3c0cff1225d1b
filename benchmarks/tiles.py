"""Small defects in large photographs: one resize against overlapping windows, in accuracy and in time.

    python benchmarks/tiles.py --data_root runs/tiles/data --make 2000 --category scratched --tiles 1 8 \\
        --epochs 1:20 8:4 --output runs/tiles/scratched
    python benchmarks/tiles.py --data_root data/folder --category magnetic_tile --tiles 1 2 \\
        --aux_path data/dtd/images --output runs/tiles/magnetic_tile

Trains the robust recipe with the embedded teacher and scores at native resolution, with each number of windows in turn;
a run that is there is only scored again. --make SIDE makes a data set first: plates of brushed metal of SIDE x SIDE
pixels, half of the test images with one or two scratches, 6 pixels wide and 60 to 120 long. --epochs TILES:N sets the
epochs of both stages for a number of windows (default 20).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from PIL import Image

from utils.cli import at_least, run_command, user_path
from utils.metrics.tables import COLUMNS
from utils.system.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
TRAIN, GOOD, SCRATCHED = 30, 20, 20  # images
WIDTH, LENGTHS = 6, (60, 120)  # pixels of a scratch


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the category")
    add("--category", required=True, metavar="NAME", help="what is trained")
    add("--make", type=at_least(256), metavar="SIDE", help="make the category first")
    add("--aux_path", default="builtin", metavar="DTD_IMAGES", help="textures (default builtin)")
    add("--tiles", type=at_least(1), nargs="+", default=[1, 2], metavar="N", help="windows across (default 1 2)")
    add("--epochs", nargs="*", default=[], metavar="TILES:N", help="epochs of both stages (default 20)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="default 0")
    add("--output", type=user_path, required=True, metavar="DIR", help="folder for the runs")
    return parser.parse_args()


def make_plates(folder: Path, side: int, seed: int = 0) -> None:
    """Write a category of plates in MVTec AD's layout, with masks."""
    rng = np.random.default_rng(seed)
    for split, kind, count in (("train", "good", TRAIN), ("test", "good", GOOD), ("test", "scratch", SCRATCHED)):
        for number in range(count):
            plate = brushed(side, rng)
            if kind == "scratch":
                mask = scratches(side, rng)
                edge = cv2.GaussianBlur(mask, (0, 0), 1.0) / 255
                plate = plate + edge * rng.choice([-1, 1]) * rng.uniform(35, 60)
                write(folder / "ground_truth" / kind / f"{number:03}_mask.png", mask)
            write(folder / split / kind / f"{number:03}.png", np.clip(plate, 0, 255).astype(np.uint8))


def brushed(side: int, rng: np.random.Generator) -> np.ndarray:
    """Grey levels (side, side) of a brushed plate in uneven light."""
    lines = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), sigmaX=24, sigmaY=0.8)
    spots = cv2.resize(rng.normal(0, 1, (5, 5)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return 130 + 12 * lines / lines.std() + 10 * spots + rng.normal(0, 4, (side, side))


def scratches(side: int, rng: np.random.Generator) -> np.ndarray:
    """The mask uint8 (side, side), 0 and 255, of one or two straight scratches."""
    mask = np.zeros((side, side), np.uint8)
    for _ in range(rng.integers(1, 3)):
        angle, half = rng.uniform(0, np.pi), rng.uniform(*LENGTHS) / 2
        along = half * np.array([np.cos(angle), np.sin(angle)])
        centre = rng.uniform(0.06 * side, 0.94 * side, 2)
        first, last = (tuple(map(round, centre + sign * along)) for sign in (-1, 1))
        cv2.line(mask, first, last, 255, WIDTH)
    return mask


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def call(program: str, *arguments: object) -> float:
    """Run a program of the repository; returns its seconds."""
    started = time.perf_counter()
    status = subprocess.run([sys.executable, program, *map(str, arguments)], cwd=ROOT).returncode
    if status:
        raise UsageError(f"{program} ended with {status}")
    return time.perf_counter() - started


def main() -> None:
    options = parse_args()
    options.output, options.data_root = options.output.resolve(), options.data_root.resolve()
    if options.make and not (options.data_root / options.category).exists():
        make_plates(options.data_root / options.category, options.make)
    epochs = dict(map(int, pair.split(":")) for pair in options.epochs)
    rows = []
    for tiles in options.tiles:
        run, count = options.output / f"tiles{tiles}", epochs.get(tiles, 20)
        call("train.py", "--data_root", options.data_root, "--categories", options.category, "--aux_path",
             options.aux_path, "--backbone", "efficientnet_lite0", "--weights", "bundled", "--recipe", "robust",
             "--tiles", tiles, "--epochs_stage1", count, "--epochs_stage2", count, "--seed", options.seed,
             "--output", run)
        call("test.py", "--data_root", options.data_root, "--run", run, "--resolution", "native")
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        native, seconds = results["native"]["categories"][options.category], results["seconds"][options.category]
        images = results["test_files"][options.category]["count"]
        figures = [f"{100 * native[metric]:.2f}" for metric in COLUMNS]
        rows.append([f"{tiles} x {tiles}", f"{count} + {count}", *figures, f"{seconds['training']:.0f}",
                     f"{1000 * seconds['testing'] / images:.0f}"])
    print("\n| windows | epochs | " + " | ".join(COLUMNS.values()) + " | training, s | scoring, ms an image |")
    print("|---|---" + "|---:" * (len(COLUMNS) + 2) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    run_command(main)
