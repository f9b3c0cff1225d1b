"""Anomalous pixels of a ground-truth image, however the mask was drawn.

Decided by what the file holds, not by its name:

- Colours and grey levels: anything above 0 is anomalous.
- Lossy data (JPEG, WebP, or grey levels as a PNG made of a JPEG has them) and smoothed edges: anything above half of
  the highest level, since the background is noisy. Flat areas of many levels are no noise, but numbered regions.
- An alpha channel with transparent parts: what is transparent is not anomalous; of what is not, the colours decide, or
  all is where there is but one colour, in which case the drawing is in the alpha channel alone.
- A palette: its colours decide; where none in use is black, place 0 is the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from datasets.sizes import Size, height_width

if TYPE_CHECKING:
    from datasets.decoding import ImageFile

LOSSY_FORMATS = ("JPEG", "WEBP")
FEW_LEVELS = 16  # that a drawing has
HALF = 127  # of 255
NOISE = 1 / 8  # of the highest level, from either end: how far most lossy data go astray
FLAT = 0.9  # of the pixels of numbered regions; of those of lossy data hardly any
GREY = 1 / 4  # of the highest level, which noise does not reach


def anomalous_pixels(image: ImageFile) -> np.ndarray:
    """The mask uint8 (H, W) of 0 and 1 in a decoded image. Raises ValueError for values that are no numbers."""
    levels, alpha = _levels(image), image.alpha()
    drawn = levels > _threshold(image, levels)
    if image.indices() is not None and drawn.all():
        drawn = image.indices() > 0
    if alpha is not None and (alpha == 0).any() and alpha.any():
        opaque = alpha > _noise_threshold(alpha)
        seen = levels[opaque]
        drawn = opaque if not seen.size or (seen == seen[0]).all() else drawn & opaque
    return drawn.astype(np.uint8)


def count_grey_regions(image: ImageFile, mask: np.ndarray) -> int:
    """Count the 8-connected regions that are above the noise and yet nowhere anomalous in `mask`, that of the image."""
    levels = _levels(image)
    if not _threshold(image, levels) or not mask.any():
        return 0
    regions, labels = cv2.connectedComponents((levels > GREY * levels.max()).astype(np.uint8), connectivity=8)
    read = np.unique(labels[mask > 0])
    return int(regions - 1 - np.count_nonzero(read))


def shrink_mask(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask (H, W) at `size` pixels, nearest neighbour: regions between the pixels taken are lost."""
    height, width = height_width(size)
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def lost_regions(mask: np.ndarray, size: Size) -> int:
    """Count the 8-connected regions of a mask uint8 (H, W) that have no pixel left after `shrink_mask`."""
    regions, labels = cv2.connectedComponents(mask, connectivity=8)
    left = np.unique(shrink_mask(labels, size))
    return int(regions - 1 - np.count_nonzero(left))


def _levels(image: ImageFile) -> np.ndarray:
    """Grey levels (H, W), 0 being black: of colours the highest channel."""
    values = image.pixels()
    image.range_of(values)
    levels = values.max(axis=2) if values.ndim == 3 else values
    return levels.max(initial=0) - levels if image.white_is_zero else levels


def _threshold(image: ImageFile, levels: np.ndarray) -> float:
    return HALF if image.format in LOSSY_FORMATS else _noise_threshold(levels)


def _noise_threshold(levels: np.ndarray) -> float:
    """Half of the highest of grey levels (H, W) where those below are noise or smoothed edges; 0 where they are drawn.
    Noise is nowhere flat, and has many levels, or such near both ends alone."""
    highest = float(levels.max())
    between = (levels > 0) & (levels < highest)
    if not between.any() or (levels.dtype == np.uint8 and highest <= HALF) or _is_flat(levels, between):
        return 0.0
    others = np.unique(levels[between])
    dark, bright = others <= NOISE * highest, others >= (1 - NOISE) * highest
    is_noise = dark.any() and bright.any() and (dark | bright).all()
    return highest / 2 if is_noise or len(others) > FEW_LEVELS - 2 else 0.0


def _is_flat(levels: np.ndarray, part: np.ndarray) -> bool:
    """Tell whether nearly all pixels of a part are in squares of 2 x 2 equal ones."""
    corner = levels[:-1, :-1]
    square = (corner == levels[1:, :-1]) & (corner == levels[:-1, 1:]) & (corner == levels[1:, 1:])
    squares = np.pad(square, 1)
    flat = squares[1:, 1:] | squares[:-1, 1:] | squares[1:, :-1] | squares[:-1, :-1]
    return np.count_nonzero(flat & part) > FLAT * np.count_nonzero(part)
