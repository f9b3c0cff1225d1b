"""Arrays uint8 in files that are mapped into memory, as NumPy's .npy files with a checksum behind the numbers.

    create(path, shape); write(path, shape, place=3, content=image); seal(path, shape, "images.npy")
    damage(path, shape)                                     # "" if it is whole, otherwise what is wrong
    images = map_file(path, shape)                          # a tensor; what is written to it stays in this process

A file that was not sealed, because its writer was killed or a disk lost what it had promised to keep, is damaged; so is
one under another name than it was sealed for.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.system.files import reserve

MARK = b"crc32 "  # before the checksum of the file's name and all that precedes it, eight hexadecimal digits
CHUNK = 1 << 24  # bytes read at once


def create(path: Path, shape: Sequence[int]) -> None:
    """Make a file with room for all numbers."""
    with path.open("wb") as file:
        file.write(_header(shape))
        file.truncate(_length(shape))
        reserve(file)


def write(path: Path, shape: Sequence[int], place: int, content: np.ndarray) -> None:
    """Write the numbers at one place of the first dimension."""
    with path.open("rb+", buffering=0) as file:
        file.seek(len(_header(shape)) + place * content.size)
        file.write(content.tobytes())


def seal(path: Path, shape: Sequence[int], name: str) -> None:
    """Add the checksum: the file is whole, and is going to be called `name`."""
    with path.open("ab") as file:
        file.write(_mark(path, _length(shape), name))


def damage(path: Path, shape: Sequence[int]) -> str:
    """Name the damage of a file that shall hold so many numbers, "" if nothing is. All of it is read."""
    length = _length(shape)
    try:
        if path.stat().st_size != length + len(MARK) + 8:
            return "it has another size"
        with path.open("rb") as file:
            file.seek(length)
            mark = file.read()
        if mark != _mark(path, length, path.name):
            return "its checksum is another"
        array = np.load(path, mmap_mode="r")
        wrong = array.shape != tuple(shape) or array.dtype != np.uint8 or array.offset != len(_header(shape))
        return f"it holds {array.dtype} {array.shape}" if wrong else ""
    except (OSError, ValueError, EOFError) as error:
        return str(error)


def map_file(path: Path, shape: Sequence[int]) -> Tensor:
    """The numbers, read when they are needed; torch wants memory that it could write to."""
    return torch.from_numpy(np.memmap(path, np.uint8, "c", len(_header(shape)), tuple(shape)))


def _header(shape: Sequence[int]) -> bytes:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def _length(shape: Sequence[int]) -> int:
    return len(_header(shape)) + math.prod(shape)


def _mark(path: Path, length: int, name: str) -> bytes:
    """The mark that belongs behind the first bytes of a file of this name."""
    checksum, left = zlib.crc32(name.encode()), length
    with path.open("rb") as file:
        while left and (chunk := file.read(min(CHUNK, left))):
            checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    return MARK + f"{checksum:08x}".encode()
