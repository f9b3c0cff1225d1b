"""The way from a file to its decoded content; whoever keeps decoded files stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import Picture, load_mask, read_picture
from datasets.levels import Levels


class Reader:
    """Decode files each time they are asked for."""

    size = 0  # bytes that are kept

    def picture(self, path: Path) -> Picture:
        """Decode an image. Raises DataError naming the file if it cannot be read."""
        return read_picture(path)

    def mask(self, path: Path) -> np.ndarray:
        """Decode a mask uint8 (H, W) of 0 and 1. Raises DataError naming the file if it cannot be read."""
        return load_mask(path)

    def image(self, path: Path, levels: Levels | None = None) -> np.ndarray:
        """Decode an image uint8 (H, W, 3). Raises DataError as `datasets.base.load_image`."""
        return self.picture(path).rgb(levels)

    def drop(self, *roles: str) -> None:
        """Give back the memory of what is kept: here nothing."""

    @property
    def last(self) -> Reader:
        """The same for images that are not asked for again."""
        return self


FROM_DISK = Reader()
