"""The teacher's features of the training images for Stage II: they never change, so they are computed once and kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.batches import epoch_batches, to_device
from models.aand import AAND
from utils.system.files import naming, reserve
from utils.system.memory import LARGEST_SHARE, available_memory, processes_here
from utils.training.execution import Execution


class TeacherFeatures:
    """Batches of features in an epoch's order, from the images or, after `keep`, from where they are kept.

    images: uint8 (N, h, w, 3 or more), RGB first, indexed by tensors of positions; each photograph has so many
    `windows` of them, one after the other. Features have the type of the execution's precision, kept or not, so keeping
    them changes nothing, or a smaller last batch by rounding.
    """

    def __init__(
        self, model: AAND, images: Tensor, *, batch_size: int, seed: int, execution: Execution, windows: int = 1
    ):
        self.model, self.images, self.execution = model, images, execution
        self.batch_size, self.seed, self.windows = batch_size, seed, windows
        self.device = model.device
        self.kept: list[Tensor] | None = None  # levels (N, H, W, C)
        self.check: Callable[[], None] = lambda: None  # called for each batch that is kept; may raise Interrupted

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """The images' numbers (B,) in the batches of an epoch; of several processes' batches this one's share."""
        for batch in epoch_batches(len(self.images), self.batch_size, self.seed, epoch):
            yield batch[self.execution.world.share(len(batch))]

    def epoch(self, epoch: int) -> Iterator[list[Tensor]]:
        """The features of the batches of an epoch, three levels (B, C, H, W) each."""
        for batch in self.batches(epoch):
            if self.kept is None:
                yield self.compute(batch)
            else:
                yield [to_device(level[batch.to(level.device)], self.device).permute(0, 3, 1, 2) for level in self.kept]

    @torch.no_grad()
    def compute(self, batch: Tensor) -> list[Tensor]:
        images = to_device(self.images[batch], self.device)[..., :3]
        inputs = self.model.normalise(images.permute(0, 3, 1, 2))
        inputs = inputs.contiguous(memory_format=self.execution.memory_format)
        with self.execution.autocast(self.device):
            return [level.to(self.execution.dtype) for level in self.model.teacher(inputs)]

    def keep(self, choice: str, cache: str, folder: Path) -> str:
        """Compute all features now and keep them, unless `choice` is "off", or "auto" and they do not fit.

        They are kept on the training device where half of its free memory holds them, otherwise in the machine's; with
        `cache` "disk" in an unnamed file in `folder`, gone when the process ends. Returns one line that says what was
        done.
        """
        if choice == "off":
            return "features are computed anew in each epoch"
        batches = torch.arange(len(self.images)).split(self.batch_size)
        first = self.compute(batches[0])
        needed = sum(level[0].nbytes for level in first) * len(self.images)
        place, free = self._place(needed, cache, folder)
        size = f"{needed / 1e9:.2f} GB of features"
        if choice == "auto" and self.execution.world.total(needed > LARGEST_SHARE * free):  # if only in one process
            return (
                f"{size} do not fit into half of the {free / 1e9:.2f} GB free {place}: computed anew in each epoch "
                "(--cache_features on keeps them all the same, --cache disk on disk)"
            )
        kept = [self._allocate(level, place, folder) for level in first]
        for number, batch in enumerate(batches):
            self.check()
            for target, level in zip(kept, self.compute(batch) if number else first, strict=True):
                target[batch[0] : batch[-1] + 1] = level.permute(0, 2, 3, 1)
        self.kept = kept
        return f"{size} are kept {place}"

    def _place(self, needed: int, cache: str, folder: Path) -> tuple[str, int]:
        """A place for so many bytes, in words, and how many are free there."""
        if cache == "disk":
            folder.mkdir(parents=True, exist_ok=True)
            return "on disk", shutil.disk_usage(folder).free // processes_here()
        if self.device.type == "cuda" and needed <= LARGEST_SHARE * available_memory(self.device):
            return "on the device", available_memory(self.device)
        return "in memory", available_memory()

    def _allocate(self, level: Tensor, place: str, folder: Path) -> Tensor:
        """Room for the level (B, C, H, W) of all images, (N, H, W, C)."""
        channels, height, width = level.shape[1:]
        shape = (len(self.images), height, width, channels)
        if place == "on disk":
            with naming(folder):
                file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the mapping keeps it open
                mapped = np.memmap(file, np.uint8, mode="w+", shape=(int(np.prod(shape)) * level.element_size(),))
                reserve(file)
            return torch.from_numpy(mapped).view(level.dtype).view(shape)
        return torch.empty(shape, dtype=level.dtype, device=self.device if place == "on the device" else "cpu")
