"""View of an image for the model: its values as grey levels, the part where the objects are, in full contrast.

Small objects are shown larger for the same computing, and photographs that use few grey levels get all of them. Large
photographs are shown in windows that overlap, and beside a region of interest nothing is shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from datasets.base import MAX_PIXELS, Tell, load_image, resize
from datasets.extents import bounds, levels_in_use, object_box
from datasets.levels import EARLIER_LEVELS, Levels
from datasets.plain_json import typed
from datasets.regions import LEAST_SIDE, Box, Polygons, bounds_of, check_polygons, region_mask
from datasets.sizes import Size, height_width
from datasets.windows import MOST_WINDOWS, joined_side, joining_matrix, side_by_side, spans

if TYPE_CHECKING:  # what only reads runs needs no torch
    from torch import Tensor

NUMBERS = ("top", "bottom", "left", "right", "black", "white", "rows", "columns")  # of a view
LATER = ("levels", "rows", "columns", "region")  # which earlier views do not have
FADE = 1 / 16  # of the box


@dataclass(frozen=True)
class View:
    """A box, in shares of the image's height and width, and the grey levels that are shown as 0 and as 255.

    levels: how a category's files become grey levels, as its training images decided; None: each file alone decides.
    rows, columns: of the windows in the box (datasets/windows.py); one shows all of it. region: of interest
    (datasets/regions.py), beside which all is one grey; none: all is of interest.
    """

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0
    black: float = 0.0
    white: float = 255.0
    levels: Levels | None = None
    rows: int = 1
    columns: int = 1
    region: Polygons = ()

    def __post_init__(self):
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} of a view must be a number, got {value!r}")
        if not isinstance(self.levels, Levels | None):
            raise ValueError(f"levels of a view must be Levels or None, got {self.levels!r}")
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"the box of a view must lie within 0..1, got {self}")
        if min(self.bottom - self.top, self.right - self.left) < LEAST_SIDE:
            raise ValueError(f"the box of a view must be at least {LEAST_SIDE} high and wide, got {self}")
        if not 0 <= self.black < self.white <= 255:
            raise ValueError(f"black and white of a view must lie within 0..255, black below white, got {self}")
        if not all(isinstance(count, int) and 1 <= count <= MOST_WINDOWS for count in (self.rows, self.columns)):
            raise ValueError(f"rows and columns of a view must lie within 1..{MOST_WINDOWS}, got {self}")
        if self.region:
            check_polygons(self.region)

    @classmethod
    def of(
        cls, images: Tensor | Sequence[Tensor], crop: bool = True, stretch: bool = True, levels: Levels | None = None,
        tiles: Size = 1, region: Polygons = (),
    ) -> View:
        """The view of training images uint8 (N, H, W, 4), RGB and foreground of 0 and 1, as they are whole.

        crop: the box that holds every image's foreground, and a margin; the whole image where there is none, and never
        more than the region has. stretch: all but one in two hundred of the values within the box, at either end, keep
        apart. tiles: rows and columns of windows.
        """
        height, width = images.shape[1:3]
        whole = cls.whole(levels, tiles, region)
        inside = region_mask(region, (height, width)) if region else np.ones((height, width), bool)
        box = object_box(images, inside) if crop else bounds(inside)
        black, white = levels_in_use(images, box, inside) if stretch else (0, 255)
        edges = (edge / side for edge, side in zip(box, (height, height, width, width), strict=True))
        ends = zip(edges, (whole.top, whole.bottom, whole.left, whole.right), (max, min, max, min), strict=True)
        top, bottom, left, right = (nearer(edge, end) for edge, end, nearer in ends)
        return replace(whole, top=top, bottom=bottom, left=left, right=right, black=black, white=white)

    @classmethod
    def whole(cls, levels: Levels | None = None, tiles: Size = 1, region: Polygons = ()) -> View:
        """The view of all of an image or, with a region of interest, of the box around it."""
        rows, columns = height_width(tiles)
        top, bottom, left, right = bounds_of(region) if region else (0.0, 1.0, 0.0, 1.0)
        return cls(top, bottom, left, right, levels=levels, rows=rows, columns=columns, region=region)

    @classmethod
    def from_dict(cls, content: Any) -> View:
        """The inverse of dataclasses.asdict; without levels, EARLIER_LEVELS. Raises ValueError for anything else."""
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or sorted({*content, *LATER}) != sorted(names):
            raise ValueError(f"a view has {', '.join(names)}")
        levels = content.get("levels", EARLIER_LEVELS)
        region = typed(content.get("region", []), list[list[list[float]]], "region")
        return cls(**content | {
            "levels": Levels.from_dict(levels) if isinstance(levels, dict) else levels,
            "region": tuple(tuple(map(tuple, polygon)) for polygon in region),
        })

    @property
    def word(self) -> str:
        """The view as one word, which further fields at their defaults would not change."""
        changed = {name: float(getattr(self, name)) for name in NUMBERS if getattr(self, name) != getattr(WHOLE, name)}
        levels = {name: scale for name, scale in asdict(self.levels).items() if scale} if self.levels else None
        region = [self.region] if self.region else []
        return hashlib.sha256(json.dumps([changed, levels, *region], sort_keys=True).encode()).hexdigest()

    def load(self, path: Path, most_pixels: int = MAX_PIXELS, tell: Tell | None = None) -> np.ndarray:
        """Read an image file of the category, as `load_image` does: uint8 (H, W, 3)."""
        return load_image(path, most_pixels=most_pixels, levels=self.levels, tell=tell)

    @property
    def windows(self) -> int:
        """The number of windows that an image is shown in."""
        return self.rows * self.columns

    def windows_of(self, image: np.ndarray, size: Size) -> np.ndarray:
        """An image uint8 (H, W, 3) as the model sees it, window by window, row by row: uint8 (windows, h, w, 3)."""
        covered = self._cover(image)
        return np.stack([self._show(covered, size, number) for number in range(self.windows)])

    def show(self, image: np.ndarray, size: Size, window: int = 0) -> np.ndarray:
        """A window of an image uint8 (H, W, 3) as the model sees it: uint8 (h, w, 3), at `size` pixels."""
        return self._show(self._cover(image), size, window)

    def show_mask(self, mask: np.ndarray, size: Size, window: int = 0) -> np.ndarray:
        """A mask uint8 (H, W) of the image in a window, resized with nearest neighbour: uint8 (h, w); 0 beside the
        region."""
        height, width = height_width(size)
        inside = mask * region_mask(self.region, mask.shape) if self.region else mask
        box = self._box_in(mask, window)
        return np.asarray(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST, box=box))

    @property
    def beside(self) -> int:
        """The grey level of all that is beside the region of interest: in the middle of what is shown."""
        return round((self.black + self.white) / 2)

    def _cover(self, image: np.ndarray) -> np.ndarray:
        if not self.region:
            return image
        return np.where(region_mask(self.region, image.shape[:2])[..., None], image, np.uint8(self.beside))

    def _show(self, image: np.ndarray, size: Size, window: int) -> np.ndarray:
        resized = np.asarray(resize(Image.fromarray(image), size, self._box_in(image, window)))
        if (self.black, self.white) == (0, 255):
            return resized
        stretched = (np.arange(256) - self.black) * 255 / (self.white - self.black)
        return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)[resized]

    def map_size(self, size: Size) -> tuple[int, int]:
        """Height and width of the map of a whole image, at the resolution that windows of `size` have."""
        height, width = height_width(size)
        return joined_side(self.rows, height), joined_side(self.columns, width)

    def place(self, maps: np.ndarray) -> np.ndarray:
        """Maps float32 (N * windows, h, w) of what is shown as maps (N, H, W) of the whole images, H and W as of
        `map_size`; each is at its lowest where nothing is shown."""
        if self.is_whole and self.windows == 1 and not self.region:
            return maps
        rows, columns = self.joining(maps.shape[1:])
        placed = rows @ side_by_side(maps, self.rows, self.columns) @ columns.T  # (N, H, W)
        lowest = maps.reshape(len(placed), -1).min(axis=1)
        return np.where(self.shown_in(placed.shape[1:]), placed, lowest[:, None, None])

    def joining(self, size: Size) -> tuple[np.ndarray, np.ndarray]:
        """The matrices for rows and columns that make the map of a whole image of those of its windows, side by side:
        `datasets.windows.joining_matrix`."""
        (height, width), whole = height_width(size), self.map_size(size)
        top, bottom, left, right = self.box(whole)
        return (
            joining_matrix(self.rows, height, whole[0], top, bottom),
            joining_matrix(self.columns, width, whole[1], left, right),
        )

    def shown_in(self, shape: tuple[int, int]) -> np.ndarray:
        """The places of a whole image's map of height and width `shape` that are shown: bool (H, W)."""
        top, bottom, left, right = self.box(shape)
        shown = np.zeros(shape, bool)
        shown[top:bottom, left:right] = True
        return shown & region_mask(self.region, shape) if self.region else shown

    def weight(self, shape: tuple[int, int]) -> np.ndarray | None:
        """How much of a map is to be seen over an image of height and width `shape`: float32 (H, W), 1 in the box and 0
        outside, rising over FADE of its sides where the image goes on beyond it, and 0 beside a region of interest;
        None where all is shown."""
        if self.region:
            return region_mask(self.region, shape).astype(np.float32)
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

    def box(self, size: Size) -> tuple[int, int, int, int]:
        """Top, bottom, left and right of the box in a map of `size` pixels, at least one high and wide."""
        height, width = height_width(size)
        top, bottom = round(self.top * height), round(self.bottom * height)
        left, right = round(self.left * width), round(self.right * width)
        return top, max(bottom, top + 1), left, max(right, left + 1)  # both may round to the same

    def window_box(self, window: int) -> Box:
        """Top, bottom, left and right of a window, as shares of the image."""
        if self.windows == 1:
            return self.top, self.bottom, self.left, self.right
        row, column = divmod(window, self.columns)
        (first, last), (start, end) = spans(self.rows)[row], spans(self.columns)[column]
        high, wide = self.bottom - self.top, self.right - self.left
        return self.top + first * high, self.top + last * high, self.left + start * wide, self.left + end * wide

    def _box_in(self, array: np.ndarray, window: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a window in pixels of an image or mask."""
        height, width = array.shape[:2]
        top, bottom, left, right = self.window_box(window)
        return left * width, top * height, right * width, bottom * height


WHOLE = View()


def enlarge(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (H, W) resized bilinearly to `size` (height, width)."""
    return cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR)
