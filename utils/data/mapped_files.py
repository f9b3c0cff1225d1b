"""Arrays uint8 in files that are mapped into memory, as NumPy's .npy files with a checksum behind the numbers.

A file that was not sealed, e.g. because its writer was killed, is damaged; so is one under another name than it was
sealed for.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.system.files import reserve

MARK = b"crc32 "  # before the checksum of the file's name and all that precedes it, eight hexadecimal digits
CHUNK = 1 << 24  # bytes read at once


@dataclass(frozen=True)
class MappedFile:
    """A file for numbers of a shape."""

    path: Path
    shape: tuple[int, ...]

    @cached_property
    def header(self) -> bytes:
        file = BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": self.shape})
        return file.getvalue()

    @property
    def length(self) -> int:
        """Bytes of header and numbers."""
        return len(self.header) + math.prod(self.shape)

    def create(self) -> None:
        """Make the file with room for all numbers."""
        with self.path.open("wb") as file:
            file.write(self.header)
            file.truncate(self.length)
            reserve(file)

    def write(self, place: int, content: np.ndarray) -> None:
        """Write the numbers at one place of the first dimension."""
        with self.path.open("rb+", buffering=0) as file:
            file.seek(len(self.header) + place * content.size)
            file.write(content.tobytes())

    def seal(self, name: str) -> None:
        """Add the checksum: the file is whole, and is going to be called `name`."""
        with self.path.open("ab") as file:
            file.write(self._mark(name))

    def damage(self) -> str:
        """Name the damage, "" if there is none. All of the file is read."""
        try:
            if self.path.stat().st_size != self.length + len(MARK) + 8:
                return "it has another size"
            with self.path.open("rb") as file:
                file.seek(self.length)
                mark = file.read()
            if mark != self._mark(self.path.name):
                return "its checksum is another"
            array = np.load(self.path, mmap_mode="r")
            wrong = array.shape != self.shape or array.dtype != np.uint8 or array.offset != len(self.header)
            return f"it holds {array.dtype} {array.shape}" if wrong else ""
        except (OSError, ValueError, EOFError) as error:
            return str(error)

    def map(self) -> Tensor:
        """The numbers, read when they are needed; what is written to them stays in this process."""
        if not math.prod(self.shape):
            return torch.empty(self.shape, dtype=torch.uint8)
        return torch.from_numpy(np.memmap(self.path, np.uint8, "c", len(self.header), self.shape))

    def _mark(self, name: str) -> bytes:
        """The mark that belongs behind the numbers of a file of this name."""
        checksum, left = zlib.crc32(name.encode()), self.length
        with self.path.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK, left))):
                checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
        return MARK + f"{checksum:08x}".encode()
