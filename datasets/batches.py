"""The order in which images come, those that are held out, and the synthetic anomalies that are made of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.anomalies.synthesis import draw_anomalies, select_rows, synthesise_anomalies
from datasets.base import DataError, Sample

HOLD_OUT_SEED = 0
CALIBRATION_SEED = 1  # another, or shares of one size would be of one choice


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
    kept = [sample for index, sample in enumerate(samples) if index not in left_out]
    return kept, [sample for index, sample in enumerate(samples) if index in used]


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Positions 0..count-1 in batches, shuffled by the seed and the epoch's number alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    yield from torch.from_numpy(order).split(batch_size)


class SyntheticAnomalies:
    """Stage I's data: in every epoch a new synthetic anomaly on each normal image, made on `device`.

    images: uint8 (N, H, W, 4), RGB and the foreground mask of 0 and 1, as of `training_files`; textures: uint8
    (T, 3, H, W); both tensors, or what is indexed like them. What is drawn depends on the seed and the epoch alone; the
    batch size only cuts it, and `share(B)` says which part of B images to make: by default (`slice(B)`) all of them.
    """

    def __init__(
        self, images: Tensor, textures: Tensor, *, batch_size: int, seed: int, device: torch.device | str = "cpu",
        share: Callable[[int], slice] = slice,
    ):
        self.images, self.textures = images, textures
        self.batch_size, self.seed, self.device, self.share = batch_size, seed, device, share

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of images uint8 (B, 3, H, W), masks and foregrounds uint8 (B, 1, H, W) of 0 and 1."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        for batch in epoch_batches(len(self.images), self.batch_size, self.seed, epoch):
            own = self.share(len(batch))
            batch, draws = batch[own], draw_anomalies(len(batch), generator)[own]
            images = to_device(select_rows(self.images, batch), self.device)
            planes = images.permute(0, 3, 1, 2).contiguous()  # (B, 4, H, W)
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
