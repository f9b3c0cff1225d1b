"""Decoded files between the check and the training, so that each is opened and decoded once.

Only when the check has seen all files is it known which of them are used, which values are black and white, and where
the objects are: images stay at their full size until the last who needs them has taken them. What finds no room is
opened again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm import tqdm

from datasets.base import Picture, Reader, load_mask, read_picture
from datasets.drawn_masks import state_of
from utils.system.memory import LARGEST_SHARE, available_memory, release_freed_memory

Key = tuple[str, Path, int, int]  # "image" or "mask", path, bytes and time of change (ns) of the file


class DecodedFiles(Reader):
    """Keep what is decoded while there is room. May be asked from several threads.

    most: bytes; by default half of the memory that is free when the first file comes.
    """

    def __init__(self, most: int | None = None):
        self.most, self.size = most, 0
        self._kept: dict[Key, Picture | np.ndarray] = {}
        self._lock, self._is_full = Lock(), False

    def picture(self, path: Path) -> Picture:
        return self._get("image", path, read_picture)

    def mask(self, path: Path) -> np.ndarray:
        return self._get("mask", path, load_mask)

    @property
    def last(self) -> Reader:
        return _LastReader(self)

    def take_picture(self, path: Path) -> Picture:
        """Return an image that is not asked for again."""
        with self._lock:
            picture = self._kept.pop(key_of("image", path), None)
            self.size -= _bytes_of(picture) if picture else 0
        return picture or read_picture(path)

    def keep(self, key: Key | None, content: Picture | np.ndarray) -> None:
        """Keep the content of a file whose key was taken before it was opened."""
        with self._lock:
            if self.most is None:
                self.most = int(LARGEST_SHARE * available_memory())
            if key is None or key in self._kept:
                return
            if self.size + _bytes_of(content) <= self.most:
                self._kept[key] = content
                self.size += _bytes_of(content)
            elif not self._is_full:
                self._is_full = True
                text = f"decoded files fill {self.most / 1e9:.1f} GB, half of the free memory: others are opened again"
                tqdm.write(text, file=sys.stderr)

    def drop(self, *roles: str) -> None:
        """Give back the memory of "image", "mask" or, by default, both."""
        with self._lock:
            self._kept = {key: content for key, content in self._kept.items() if roles and key[0] not in roles}
            self.size = sum(map(_bytes_of, self._kept.values()))
        release_freed_memory()

    def _get(self, role: str, path: Path, read: Callable) -> Picture | np.ndarray:
        key = key_of(role, path)
        content = self._kept.get(key)
        if content is None:
            content = read(path)
            self.keep(key, content)
        return content


class _LastReader(Reader):
    def __init__(self, decoded: DecodedFiles):
        self.picture, self.mask = decoded.take_picture, decoded.mask  # masks are small, and counted once more


def key_of(role: str, path: Path) -> Key | None:
    """The key of a file as it is now; None where it cannot be looked at."""
    try:
        return role, path, *state_of(path)
    except OSError:
        return None


def _bytes_of(content: Picture | np.ndarray) -> int:
    return content.values.nbytes if isinstance(content, Picture) else content.nbytes
