"""Time scripts/fore_extractor.py on 209 generated images of 900x900 (bottle's training set, the disc rule).

    python benchmarks/foreground.py

The method's public script takes 280 s for that on two cores. Images and masks go to a temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

PUBLIC_SECONDS = 280
IMAGES, SIZE = 209, 900
SCRIPT = Path(__file__).resolve().parents[1] / "scripts/fore_extractor.py"


def write_images(folder: Path, count: int) -> None:
    """Bottle-like photographs with the noise of a camera, so that decoding costs what it costs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), 240, np.uint8)
    for radius in range(390, 0, -30):
        cv2.circle(image, (SIZE // 2, SIZE // 2), radius, rng.integers(20, 150, 3).tolist(), -1)
    for index in range(count):
        noisy = image + rng.normal(0, 3, image.shape)
        cv2.imwrite(str(folder / f"{index:03}.png"), np.clip(noisy, 0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--category", default="bottle", help="its rule is timed (default: bottle, the disc)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "data" / options.category / "train/good", IMAGES)
        arguments = ["--data_path", root / "data", "--dataset", "mvtec", "--output", root / "fg_mask"]
        start = time.perf_counter()
        subprocess.run([sys.executable, SCRIPT, *arguments], check=True)
        seconds = time.perf_counter() - start
        masks = len(list((root / "fg_mask").rglob("*.png")))
    print(f"{masks} masks of {SIZE}x{SIZE} in {seconds:.1f} s: {PUBLIC_SECONDS / seconds:.0f} times the public script")


if __name__ == "__main__":
    main()
