"""What is decoded from which files, in which order images come, and the synthetic anomalies made of them.

    files = training_files(paths, "mvtec", "bottle", Path("fg_mask"))      # utils/data/image_store.py reads them, once
    anomalies = SyntheticAnomalies(images, textures, batch_size=16, seed=0)      # images with their foregrounds
    for images, masks, foregrounds in anomalies.epoch(3): ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.anomalies.synthesis import draw_anomalies, select_rows, synthesise_anomalies
from datasets.base import DataError, Sample, load_image, load_mask
from datasets.foreground import foreground_of, mask_folder, mask_name, rule_for
from datasets.view import WHOLE, View

HOLD_OUT_SEED = 0
CALIBRATION_SEED = 1  # another, or shares of one size would be of one choice


@dataclass(frozen=True)
class Files:
    """Files that are decoded in one way, each to a uint8 array of one shape.

    `kind` names the way; `other_paths` are further files that the result depends on, `depends_on` says what else.
    """

    kind: str
    paths: tuple[Path, ...]
    load: Callable[[Path, int], np.ndarray]  # path, size in pixels
    channels: tuple[int, ...] = ()  # after height and width
    planes_first: bool = False
    other_paths: tuple[Path, ...] = ()
    depends_on: str = ""

    def shape(self, size: int) -> tuple[int, ...]:
        """Of all files decoded, one after the other along the first dimension."""
        one = (*self.channels, size, size) if self.planes_first else (size, size, *self.channels)
        return (len(self.paths), *one)


def paths_of(samples: Sequence[Sample]) -> list[Path]:
    """The samples' images."""
    return [sample.image_path for sample in samples]


def image_files(paths: Sequence[Path], view: View = WHOLE) -> Files:
    """RGB images (S, S, 3), as the view shows them."""

    def load(path: Path, size: int) -> np.ndarray:
        return view.show(view.load(path), size)

    return Files("images", tuple(paths), load, (3,), depends_on=str(view))


def mask_files(paths: Sequence[Path]) -> Files:
    """Ground truth (S, S) of 0 and 1."""
    return Files("masks", tuple(paths), load_mask)


def texture_files(paths: Sequence[Path]) -> Files:
    """RGB images (3, S, S): planes, as the synthesis wants them."""
    return Files("textures", tuple(paths), _load_planes, (3,), planes_first=True)


def training_files(
    paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None, view: View = WHOLE
) -> Files:
    """RGB images and, as a fourth channel, their foreground masks of 0 and 1, as the view shows them: (S, S, 4).

    A mask stored in `fg_root` is read; any other is made now, from the image at its full size.
    """

    def load(path: Path, size: int) -> np.ndarray:
        image = view.load(path)
        mask = foreground_of(path, dataset, category, fg_root, image)
        content = np.empty((size, size, 4), np.uint8)
        content[..., :3] = view.show(image, size)
        content[..., 3] = view.show_mask(mask, size)
        return content

    stored = stored_foregrounds(paths, dataset, category, fg_root)
    depends_on = f"{rule_for(dataset, category)} {view}"
    return Files("training", tuple(paths), load, (4,), other_paths=tuple(stored), depends_on=depends_on)


def stored_foregrounds(paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None) -> list[Path]:
    """The foreground masks of training images that are stored in `fg_root`."""
    if not fg_root:
        return []
    folder = mask_folder(fg_root, dataset, category)
    return [place for path in paths if os.path.lexists(place := folder / mask_name(path))]


def evaluation_files(samples: Sequence[Sample], view: View = WHOLE) -> list[Files]:
    """The images of test samples as the view shows them, and the whole masks of those that have one."""
    masks = [sample.mask_path for sample in samples if sample.label and sample.mask_path]
    return [image_files(paths_of(samples), view), mask_files(masks)]


def spread_masks(samples: Sequence[Sample], masks: Tensor) -> Tensor | None:
    """Ground truth of all test samples, uint8 (N, S, S) of 0 and 1, from that of those that have a mask, in order.

    None if an anomalous image has no mask.
    """
    if any(sample.label and sample.mask_path is None for sample in samples):
        return None
    spread = torch.zeros(len(samples), *masks.shape[1:], dtype=torch.uint8)
    spread[[index for index, sample in enumerate(samples) if sample.label]] = masks[:]
    return spread


def hold_out(
    samples: Sequence[Sample], share: float, seed: int = HOLD_OUT_SEED, same: Sequence[str] | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Training samples in two: those to train on, and a share of them held out, at least one; both in their order.

    same: a word for each, equal ones for copies of an image: they stay together, and of those held out the first alone
    is used. The choice depends on the number of different images, the share and `seed` alone. Raises DataError if none
    would be left to train on.
    """
    copies: dict[object, list[int]] = {}
    for index, word in enumerate(same or range(len(samples))):
        copies.setdefault(word, []).append(index)
    groups = list(copies.values())
    count = max(1, round(share * len(groups)))
    if count >= len(groups):
        raise DataError(f"{len(groups)} training images are too few to hold {share:.0%} of them out")
    chosen = [groups[place] for place in np.random.default_rng(seed).permutation(len(groups))[:count]]
    used, left_out = {group[0] for group in chosen}, {index for group in chosen for index in group}
    return (
        [sample for index, sample in enumerate(samples) if index not in left_out],
        [sample for index, sample in enumerate(samples) if index in used],
    )


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Positions 0..count-1 in batches, shuffled by the seed and the epoch's number alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    yield from torch.from_numpy(order).split(batch_size)


class SyntheticAnomalies:
    """Stage I's data: in every epoch a new synthetic anomaly on each normal image, made on `device`.

    images: uint8 (N, S, S, 4), RGB and the foreground mask of 0 and 1, as of `training_files`; textures: uint8
    (T, 3, S, S); both tensors, or what is indexed like them. What is drawn depends on the seed and the epoch alone; the
    batch size only cuts it, and `share(B)` says which part of B images to make: by default (`slice(B)`) all of them.
    """

    def __init__(
        self, images: Tensor, textures: Tensor, *, batch_size: int, seed: int, device: torch.device | str = "cpu",
        share: Callable[[int], slice] = slice,
    ):
        self.images, self.textures = images, textures
        self.batch_size, self.seed, self.device, self.share = batch_size, seed, device, share

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of images uint8 (B, 3, S, S), masks and foregrounds uint8 (B, 1, S, S) of 0 and 1."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        for batch in epoch_batches(len(self.images), self.batch_size, self.seed, epoch):
            own = self.share(len(batch))
            batch, draws = batch[own], draw_anomalies(len(batch), generator)[own]
            images = to_device(select_rows(self.images, batch), self.device)
            planes = images.permute(0, 3, 1, 2).contiguous()  # (B, 4, S, S)
            foregrounds = planes[:, 3]
            yield *synthesise_anomalies(planes[:, :3], foregrounds, self.textures, draws), foregrounds[:, None]


def to_device(batch: Tensor, device: torch.device | str) -> Tensor:
    """A batch on a device; the copy to CUDA goes on while the CPU prepares the next."""
    if torch.device(device).type == "cuda" and not batch.is_cuda:
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


def epoch_seed(seed: int, epoch: int, *part: int) -> int:
    """A generator's seed for one epoch of a run, or for a part of it."""
    return int(np.random.SeedSequence([seed, epoch, *part]).generate_state(1)[0])


def _load_planes(path: Path, size: int) -> np.ndarray:
    return np.ascontiguousarray(load_image(path, size).transpose(2, 0, 1))
