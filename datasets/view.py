"""View of an image for the model: its values as grey levels, the part where the objects are, in full contrast.

Small objects are shown larger for the same computing, and photographs that use few grey levels get all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from datasets.base import MAX_PIXELS, Tell, load_image, resize
from datasets.levels import EARLIER_LEVELS, Levels

if TYPE_CHECKING:  # what only reads runs needs no torch
    from torch import Tensor

NUMBERS = ("top", "bottom", "left", "right", "black", "white")  # of a view
FADE = 1 / 16  # of the box
MARGIN = 1 / 32  # of the frame, around the objects
TAIL = 0.005  # share of the values that may end up black, and white
CHUNK = 64  # images looked at at once


@dataclass(frozen=True)
class View:
    """A box, in shares of the image's height and width, and the grey levels that are shown as 0 and as 255.

    levels: how a category's files become grey levels, as its training images decided; None: each file alone decides.
    """

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0
    black: float = 0.0
    white: float = 255.0
    levels: Levels | None = None

    def __post_init__(self):
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} of a view must be a number, got {value!r}")
        if not isinstance(self.levels, Levels | None):
            raise ValueError(f"levels of a view must be Levels or None, got {self.levels!r}")
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"the box of a view must lie within 0..1, got {self}")
        if min(self.bottom - self.top, self.right - self.left) < MARGIN:
            raise ValueError(f"the box of a view must be at least {MARGIN} high and wide, got {self}")
        if not 0 <= self.black < self.white <= 255:
            raise ValueError(f"black and white of a view must lie within 0..255, black below white, got {self}")

    @classmethod
    def of(
        cls, images: Tensor | Sequence[Tensor], crop: bool = True, stretch: bool = True, levels: Levels | None = None
    ) -> View:
        """The view of training images uint8 (N, S, S, 4), RGB and foreground of 0 and 1.

        crop: the box that holds every image's foreground, and a margin; the whole image where there is none. stretch:
        all but one in two hundred of the values within the box, at either end, keep apart.
        """
        size = images.shape[1]
        box = _box_of(images) if crop else (0, size, 0, size)
        black, white = _levels_of(images, box) if stretch else (0, 255)
        top, bottom, left, right = (edge / size for edge in box)
        return cls(top, bottom, left, right, black, white, levels)

    @classmethod
    def from_dict(cls, content: Any) -> View:
        """The inverse of dataclasses.asdict; without levels, EARLIER_LEVELS. Raises ValueError for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or sorted({*content, "levels"}) != sorted(names):
            raise ValueError(f"a view has {', '.join(names)}")
        levels = content.get("levels", EARLIER_LEVELS)
        return cls(**content | {"levels": Levels.from_dict(levels) if isinstance(levels, dict) else levels})

    @property
    def word(self) -> str:
        """The view as one word, which further fields at their defaults would not change."""
        changed = {name: float(getattr(self, name)) for name in NUMBERS if getattr(self, name) != getattr(WHOLE, name)}
        levels = {name: scale for name, scale in asdict(self.levels).items() if scale} if self.levels else None
        return hashlib.sha256(json.dumps([changed, levels], sort_keys=True).encode()).hexdigest()

    def load(self, path: Path, most_pixels: int = MAX_PIXELS, tell: Tell | None = None) -> np.ndarray:
        """Read an image file of the category, as `load_image` does: uint8 (H, W, 3)."""
        return load_image(path, most_pixels=most_pixels, levels=self.levels, tell=tell)

    def show(self, image: np.ndarray, size: int) -> np.ndarray:
        """An image uint8 (H, W, 3) as the model sees it: uint8 (size, size, 3)."""
        resized = np.asarray(resize(Image.fromarray(image), size, self._box_in(image)))
        if (self.black, self.white) == (0, 255):
            return resized
        stretched = (np.arange(256) - self.black) * 255 / (self.white - self.black)
        return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)[resized]

    def show_mask(self, mask: np.ndarray, size: int) -> np.ndarray:
        """A mask uint8 (H, W) of the image, resized with nearest neighbour: uint8 (size, size)."""
        box = self._box_in(mask)
        return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST, box=box))

    def place(self, maps: np.ndarray) -> np.ndarray:
        """Maps float32 (N, S, S) of what is shown as maps of the whole images; each is at its lowest beside the box."""
        if self.is_whole:
            return maps
        top, bottom, left, right = self.box(maps.shape[-1])
        placed = np.empty_like(maps)
        for whole, shown in zip(placed, maps, strict=True):
            whole[:] = shown.min()
            box = whole[top:bottom, left:right]
            box[:] = cv2.resize(shown, box.shape[::-1], interpolation=cv2.INTER_AREA)
        return placed

    def weight(self, shape: tuple[int, int]) -> np.ndarray | None:
        """How much of a map is to be seen over an image of height and width `shape`: float32 (H, W), 1 in the box and 0
        outside, rising over FADE of its sides where the image goes on beyond it; None where nothing is cropped."""
        if self.is_whole:
            return None
        ramps = []
        for size, first, last in ((shape[0], self.top, self.bottom), (shape[1], self.left, self.right)):
            places, fade = (np.arange(size) + 0.5) / size, FADE * (last - first)
            rising = np.ones(size) if first == 0 else (places - first) / fade
            falling = np.ones(size) if last == 1 else (last - places) / fade
            ramps.append(np.clip(np.minimum(rising, falling), 0, 1).astype(np.float32))
        return np.minimum(ramps[0][:, None], ramps[1])

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing is cropped."""
        return (self.top, self.bottom, self.left, self.right) == (0, 1, 0, 1)

    def box(self, size: int) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the box in a map of size x size pixels, at least one high and wide."""
        top, bottom, left, right = (round(edge * size) for edge in (self.top, self.bottom, self.left, self.right))
        return top, max(bottom, top + 1), left, max(right, left + 1)  # both may round to the same

    def _box_in(self, array: np.ndarray) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels of an image or mask."""
        height, width = array.shape[:2]
        return self.left * width, self.top * height, self.right * width, self.bottom * height


WHOLE = View()


def enlarge(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (H, W) resized bilinearly to `size` (height, width)."""
    return cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR)


def _box_of(images: Tensor | Sequence[Tensor]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right in pixels."""
    size = images.shape[1]
    union = np.zeros((size, size), bool)
    for start in range(0, len(images), CHUNK):
        union |= images[start : start + CHUNK][..., 3].numpy().any(axis=0)
    if not union.any():
        return 0, size, 0, size
    margin, edges = round(MARGIN * size), []
    for axis in (1, 0):
        places = np.flatnonzero(union.any(axis=axis))
        edges += [max(0, int(places[0]) - margin), min(size, int(places[-1]) + 1 + margin)]
    top, bottom, left, right = edges
    return top, bottom, left, right


def _levels_of(images: Tensor | Sequence[Tensor], box: tuple[int, int, int, int]) -> tuple[int, int]:
    """The grey levels that are shown as black and white; 0 and 255 where there is only one."""
    top, bottom, left, right = box
    counts = np.zeros(256, np.int64)
    for start in range(0, len(images), CHUNK):
        seen = images[start : start + CHUNK][:, top:bottom, left:right, :3]
        counts += np.bincount(seen.numpy().reshape(-1), minlength=256)
    below = np.cumsum(counts) / counts.sum()
    black, white = int(np.searchsorted(below, TAIL)), int(np.searchsorted(below, 1 - TAIL))
    return (black, white) if black < white else (0, 255)
