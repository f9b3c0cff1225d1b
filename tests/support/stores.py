"""Image files, stores and counted loaders for tests of the image store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.base import Reader, load_image
from datasets.files import Files
from tests.support.trees import write_image
from utils.data.image_store import ImageStore

SIZE = 8
CACHES = ["ram", "disk", "none"]


def write_noise(folder: Path, count: int, seed: int = 0) -> list[Path]:
    rng = np.random.default_rng(seed)
    return [write_image(folder / f"{n}.png", rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)) for n in range(count)]


def expected(paths: list[Path], size: int = SIZE) -> torch.Tensor:
    return torch.from_numpy(np.stack([load_image(path, size) for path in paths]))


def counted(files: Files) -> tuple[Files, Counter]:
    """The files with a loader that counts how often each is decoded."""
    calls = Counter()

    def load(path: Path, size: int, reader: Reader) -> np.ndarray:
        calls.update([path])
        return files.decode(path, size, reader)

    return replace(files, decode=load), calls


def store(folder: Path, cache: str = "disk", size: int = SIZE) -> ImageStore:
    return ImageStore(size, workers=2, cache=cache, folder=folder / "cache")


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
