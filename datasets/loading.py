"""From samples to batches: every image is decoded once, and an epoch's batches depend on the seed alone.

    images = load_stack([s.image_path for s in samples], size=256, workers=4)
    loader = make_loader(SyntheticAnomalies(images, foregrounds, textures, seed=0), batch_size=16, seed=0, workers=1)
    loader.batch_sampler.epoch = 3
    for images, masks, foregrounds in loader: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from datasets.base import DataError, Sample, load_image, load_mask
from datasets.foreground import fg_mask_path, foreground_of
from datasets.synthesis import synthesise_anomaly


def load_stack(paths: Sequence[Path], size: int, workers: int, load: Callable = load_image) -> Tensor:
    """Read files with `load(path, size)` in parallel: uint8 (N, S, S, 3), or (N, S, S) where `load` is load_mask.

    Raises DataError naming the first file that cannot be read.
    """
    return torch.from_numpy(np.stack(list(_in_parallel(lambda path: load(path, size), paths, workers))))


def check_readable(paths: Sequence[Path], workers: int) -> None:
    """Decode every file once, before hours are spent; DataError lists those that cannot be read."""

    def problem(path: Path) -> str | None:
        try:
            load_image(path)
        except DataError as error:
            return str(error)
        return None

    found = _in_parallel(problem, paths, workers)
    problems = [p for p in tqdm(found, total=len(paths), desc="checking files", unit="file", leave=False) if p]
    if problems:
        raise DataError(f"{len(problems)} of {len(paths)} files cannot be used:\n" + "\n".join(problems[:20]))


def check_foregrounds(paths: Sequence[Path], dataset: str, category: str, fg_root: Path, workers: int) -> None:
    """Read the stored foreground masks of training images once; DataError for one that cannot be used."""
    stored = [path for path in paths if fg_mask_path(fg_root, dataset, category, path).is_file()]
    for _ in _in_parallel(lambda path: foreground_of(path, dataset, category, fg_root), stored, workers):
        pass


def load_foregrounds(
    paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None, size: int, workers: int
) -> tuple[Tensor, int]:
    """Foreground masks of the training images, uint8 (N, S, S) of 0 and 1, and how many had to be made on the fly."""

    def load(path: Path) -> tuple[np.ndarray, bool]:
        mask, was_read = foreground_of(path, dataset, category, fg_root)
        return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)), was_read

    masks, were_read = zip(*_in_parallel(load, paths, workers), strict=True)
    return torch.from_numpy(np.stack(masks)), were_read.count(False)


def load_masks(samples: Sequence[Sample], size: int, workers: int) -> Tensor | None:
    """Ground truth of test samples, uint8 (N, S, S) of 0 and 1; None if an anomalous image has no mask."""
    if any(sample.label and sample.mask_path is None for sample in samples):
        return None
    masks = torch.zeros(len(samples), size, size, dtype=torch.uint8)
    anomalous = [index for index, sample in enumerate(samples) if sample.label]
    if anomalous:
        masks[anomalous] = load_stack([samples[index].mask_path for index in anomalous], size, workers, load_mask)
    return masks


class NormalImages(Dataset):
    """Stage II's data: decoded images (N, S, S, 3) as they are; an item is uint8 (3, S, S)."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int]) -> Tensor:
        _, index = draw
        return self.images[index].permute(2, 0, 1)


class SyntheticAnomalies(Dataset):
    """Stage I's data: a synthetic anomaly on a normal image, a new one for each (epoch, index).

    An item is (image uint8 (3, S, S), mask uint8 (1, S, S), foreground uint8 (1, S, S)); the same draw gives the same
    item whichever process makes it.
    """

    def __init__(self, images: Tensor, foregrounds: Tensor, textures: Tensor, seed: int):
        self.images, self.foregrounds, self.textures, self.seed = images, foregrounds, textures, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = draw
        rng = np.random.default_rng([self.seed, epoch, index])
        texture = self.textures[int(rng.integers(len(self.textures)))]
        foreground = self.foregrounds[index]
        image, mask, _ = synthesise_anomaly(self.images[index].numpy(), foreground.numpy(), texture.numpy(), rng)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)[None], foreground[None]


class EpochBatches(Sampler):
    """Batches of (epoch, index) draws, shuffled anew in each epoch by the seed and the epoch's number alone."""

    def __init__(self, count: int, batch_size: int, seed: int):
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        for start in range(0, self.count, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


def make_loader(dataset: Dataset, batch_size: int, seed: int, workers: int) -> DataLoader:
    """A loader whose epoch is chosen by `loader.batch_sampler.epoch`; `workers` processes make the items."""
    batches = EpochBatches(len(dataset), batch_size, seed)
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)


def _in_parallel(function: Callable, items: Sequence, workers: int) -> Iterator:
    """The function's results in the items' order, from `workers` threads (Pillow and OpenCV leave the lock)."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)
