"""Data sets with something wrong, for tests, and what the check of a data set says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from datasets import open_dataset
from tests.support.trees import make_mvtec, write_image
from utils.data.check import check_source

NOISE = np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8)


def cut(path: Path) -> Path:
    """Cut a file in the middle, as a broken download does; returns its path."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def check(root: Path, categories=None, splits=("train", "test"), workers=1) -> list[str]:
    """The problems in a data set, as "severity: message: paths", with paths relative to the root."""
    source = open_dataset(root, categories=categories)
    problems = check_source(source, splits, workers=workers, cache_dir=root.parent / "cache").problems
    return [
        f"{p.severity}: {p.message}: {', '.join(path.relative_to(root).as_posix() for path in p.paths)}"
        for p in problems
    ]


def make_broken(root: Path) -> list[str]:
    """Two categories with a problem of nearly every kind; returns what `check` finds."""
    make_mvtec(root, ["tile", "bottle"])
    (root / "bottle/ground_truth/crack/000_mask.png").unlink()
    for name in ("train/good/001", "test/good/001", "ground_truth/hole/000_mask"):
        cut(root / f"bottle/{name}.png")
    write_image(root / "tile/train/odd/0.png", NOISE)
    write_image(root / "tile/ground_truth/crack/001_mask.png", np.zeros((32, 32), np.uint8))
    write_image(root / "tile/ground_truth/crack/000_mask.png", np.eye(8, dtype=np.uint8))
    shutil.copy(root / "tile/train/good/002.png", root / "tile/test/crack/000.png")
    shutil.copy(root / "tile/train/good/001.png", root / "tile/test/good/000.png")
    return [
        "error: image has no mask: bottle/test/crack/000.png",
        "error: image cannot be read: bottle/train/good/001.png",
        "error: image cannot be read: bottle/test/good/001.png",
        "error: mask cannot be read: bottle/ground_truth/hole/000_mask.png",
        "warning: training images that are not in good/ are never used: tile/train/odd",
        "error: mask and image differ in size: tile/ground_truth/crack/000_mask.png, tile/test/crack/000.png",
        "warning: mask without a single anomalous pixel: tile/ground_truth/crack/001_mask.png",
        "error: anomalous test image is a training image too: tile/test/crack/000.png, tile/train/good/002.png",
        "warning: good test image is a training image too: tile/test/good/000.png, tile/train/good/001.png",
    ]
