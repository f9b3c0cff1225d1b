"""Files to be read, and what becomes of each: an array of one shape, at the size of the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.base import Reader, Sample
from datasets.foreground import foreground_of, rule_for, stored_foregrounds
from datasets.masks import shrink_mask
from datasets.view import WHOLE, View


@dataclass(frozen=True)
class Files:
    """Files that are decoded in one way, each to a uint8 array of one shape.

    `kind` names the way; `other_paths` are further files that the result depends on, `depends_on` says what else.
    """

    kind: str
    paths: tuple[Path, ...]
    decode: Callable[[Path, int, Reader], np.ndarray]  # path, size in pixels
    channels: tuple[int, ...] = ()  # after height and width
    planes_first: bool = False
    other_paths: tuple[Path, ...] = ()
    depends_on: str = ""

    def shape(self, size: int) -> tuple[int, ...]:
        """Shape of all files decoded, one after the other along the first dimension."""
        one = (*self.channels, size, size) if self.planes_first else (size, size, *self.channels)
        return (len(self.paths), *one)


def paths_of(samples: Sequence[Sample]) -> list[Path]:
    """The samples' images."""
    return [sample.image_path for sample in samples]


def image_files(paths: Sequence[Path], view: View = WHOLE) -> Files:
    """RGB images (S, S, 3), as the view shows them."""
    return Files(
        "images", tuple(paths), lambda path, size, reader: view.show(reader.image(path, view.levels), size), (3,),
        depends_on=str(view),
    )


def mask_files(paths: Sequence[Path]) -> Files:
    """Ground truth (S, S) of 0 and 1."""
    return Files("masks", tuple(paths), lambda path, size, reader: shrink_mask(reader.mask(path), size))


def texture_files(paths: Sequence[Path]) -> Files:
    """RGB images (3, S, S): planes, as the synthesis wants them."""

    def decode(path: Path, size: int, reader: Reader) -> np.ndarray:
        return np.ascontiguousarray(WHOLE.show(reader.image(path), size).transpose(2, 0, 1))

    return Files("textures", tuple(paths), decode, (3,), planes_first=True)


def training_files(
    paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None, view: View = WHOLE
) -> Files:
    """RGB images and, as a fourth channel, their foreground masks of 0 and 1, as the view shows them: (S, S, 4).

    A mask stored in `fg_root` is read; any other is made now, from the image at its full size.
    """

    def decode(path: Path, size: int, reader: Reader) -> np.ndarray:
        image = reader.image(path, view.levels)
        mask = foreground_of(path, dataset, category, fg_root, image, reader.mask)
        content = np.empty((size, size, 4), np.uint8)
        content[..., :3] = view.show(image, size)
        content[..., 3] = view.show_mask(mask, size)
        return content

    stored = stored_foregrounds(paths, dataset, category, fg_root)
    depends_on = f"{rule_for(dataset, category)} {view}"
    return Files("training", tuple(paths), decode, (4,), other_paths=tuple(stored), depends_on=depends_on)


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
