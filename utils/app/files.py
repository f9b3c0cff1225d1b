"""Read the files of visitors, and no others.

A path that was checked when it was uploaded or listed may lead elsewhere when it is read: a file in --folder may have
become a link. So it is checked again right before, each time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from datasets.base import MAX_PIXELS, DataError, Tell
from datasets.names import printable
from datasets.view import View


def is_plain(path: str | PathLike) -> bool:
    """Tell whether a full path leads to a regular file without any link on the way."""
    try:
        return os.path.realpath(path) == str(path) and stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class PlainFiles(View):
    """A view of plain files alone."""

    def load(self, path: Path, most_pixels: int = MAX_PIXELS, tell: Tell | None = None) -> np.ndarray:
        """Load as View does. Raises DataError for what is no plain file (any more)."""
        if not is_plain(path):
            raise DataError(f"{printable(path)} is no file that can be read")
        return super().load(path, most_pixels, tell)
