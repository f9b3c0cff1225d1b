"""Which pixels of a ground-truth image are anomalous, however the mask was drawn.

Decided by what the file holds, not by its name:

- Colours and grey levels: anything above 0 is anomalous.
- Lossy data (JPEG, WebP, or many grey levels, as a PNG made of a JPEG has): anything above half of the highest level,
  since the background is noisy.
- An alpha channel with transparent parts: what is transparent is not anomalous; of what is not, the colours decide, or
  all is where there is but one colour, in which case the drawing is in the alpha channel alone.
- A palette: its colours decide; where none in use is black, place 0 is the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets.decoding import ImageFile

LOSSY_FORMATS = ("JPEG", "WEBP")
FEW_LEVELS = 16  # that a drawing has, or a mask of numbered regions
HALF = 127  # of 255


def anomalous_pixels(image: ImageFile) -> np.ndarray:
    """The mask uint8 (H, W) of 0 and 1 in a decoded image."""
    values, alpha = image.pixels(), image.alpha()
    levels = values.max(axis=2) if values.ndim == 3 else values
    if image.white_is_zero:
        levels = levels.max(initial=0) - levels
    drawn = levels > _threshold(image, levels)
    if image.indices() is not None and drawn.all():
        drawn = image.indices() > 0
    if alpha is not None and (alpha == 0).any() and alpha.any():
        opaque = alpha > HALF if _has_many_levels(alpha) else alpha > 0
        seen = levels[opaque]
        drawn = opaque if not seen.size or (seen == seen[0]).all() else drawn & opaque
    return drawn.astype(np.uint8)


def _threshold(image: ImageFile, levels: np.ndarray) -> float:
    if image.format in LOSSY_FORMATS:
        return HALF
    return float(levels.max()) / 2 if _has_many_levels(levels) else 0


def _has_many_levels(levels: np.ndarray) -> bool:
    """Whether grey levels (H, W) are those of a lossy or smoothed image: from 0 to the highest by many steps."""
    if levels.dtype == np.uint8:
        counts = np.bincount(levels.reshape(-1), minlength=256)
        highest = int(np.flatnonzero(counts)[-1])
        return highest > HALF and np.count_nonzero(counts) > FEW_LEVELS
    return len(np.unique(levels)) > FEW_LEVELS
