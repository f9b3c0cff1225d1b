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
from datasets.regions import region_mask
from datasets.sizes import Size, height_width
from datasets.view import WHOLE, View


@dataclass(frozen=True)
class Files:
    """Files that are decoded in one way, each to a uint8 array of one shape, or to `windows` of them.

    `kind` names the way; `other_paths` are further files that the result depends on, `depends_on` says what else.
    """

    kind: str
    paths: tuple[Path, ...]
    decode: Callable[[Path, Size, Reader], np.ndarray]  # path, size in pixels
    channels: tuple[int, ...] = ()  # after height and width
    planes_first: bool = False
    other_paths: tuple[Path, ...] = ()
    depends_on: str = ""
    windows: int = 1  # of each file, one after the other
    sides: Callable[[Size], tuple[int, int]] = height_width  # height and width of the arrays

    def shape(self, size: Size) -> tuple[int, ...]:
        """Shape of all files decoded, one after the other along the first dimension."""
        sides = self.sides(size)
        one = (*self.channels, *sides) if self.planes_first else (*sides, *self.channels)
        return (len(self.paths) * self.windows, *one)


def paths_of(samples: Sequence[Sample]) -> list[Path]:
    """The samples' images."""
    return [sample.image_path for sample in samples]


def image_files(paths: Sequence[Path], view: View = WHOLE) -> Files:
    """RGB images (h, w, 3), as the view shows them."""
    return Files(
        "images", tuple(paths), lambda path, size, reader: view.windows_of(reader.image(path, view.levels), size), (3,),
        depends_on=str(view), windows=view.windows,
    )


def mask_files(paths: Sequence[Path], view: View = WHOLE) -> Files:
    """Ground truth (H, W) of 0 and 1, of the size of the maps that the view gives; 0 beside its region of interest."""

    def decode(path: Path, size: Size, reader: Reader) -> np.ndarray:
        mask = shrink_mask(reader.mask(path), view.map_size(size))
        return mask * region_mask(view.region, mask.shape) if view.region else mask

    depends_on = f"{view.rows} x {view.columns} {view.region}" if view.region or view.windows > 1 else ""
    return Files("masks", tuple(paths), decode, depends_on=depends_on, sides=view.map_size)


def texture_files(paths: Sequence[Path]) -> Files:
    """RGB images (3, h, w): planes, as the synthesis wants them."""

    def decode(path: Path, size: Size, reader: Reader) -> np.ndarray:
        return np.ascontiguousarray(WHOLE.show(reader.image(path), size).transpose(2, 0, 1))

    return Files("textures", tuple(paths), decode, (3,), planes_first=True)


def training_files(
    paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None, view: View = WHOLE
) -> Files:
    """RGB images and, as a fourth channel, their foreground masks of 0 and 1, as the view shows them: (h, w, 4).

    A mask stored in `fg_root` is read; any other is made now, from the image at its full size.
    """

    def decode(path: Path, size: Size, reader: Reader) -> np.ndarray:
        image = reader.image(path, view.levels)
        mask = foreground_of(path, dataset, category, fg_root, image, reader.mask)
        content = np.empty((view.windows, *height_width(size), 4), np.uint8)
        content[..., :3] = view.windows_of(image, size)
        for number, window in enumerate(content):
            window[..., 3] = view.show_mask(mask, size, number)
        return content

    stored = stored_foregrounds(paths, dataset, category, fg_root)
    depends_on = f"{rule_for(dataset, category)} {view}"
    return Files("training", tuple(paths), decode, (4,), other_paths=tuple(stored), depends_on=depends_on,
                 windows=view.windows)


def evaluation_files(samples: Sequence[Sample], view: View = WHOLE) -> list[Files]:
    """The images of test samples as the view shows them, and the masks of those that have one, for its maps."""
    masks = [sample.mask_path for sample in samples if sample.label and sample.mask_path]
    return [image_files(paths_of(samples), view), mask_files(masks, view)]


def spread_masks(samples: Sequence[Sample], masks: Tensor) -> Tensor | None:
    """Ground truth of all test samples, uint8 (N, H, W) of 0 and 1, from that of those that have a mask, in order.

    None if an anomalous image has no mask.
    """
    if any(sample.label and sample.mask_path is None for sample in samples):
        return None
    spread = torch.zeros(len(samples), *masks.shape[1:], dtype=torch.uint8)
    spread[[index for index, sample in enumerate(samples) if sample.label]] = masks[:]
    return spread
