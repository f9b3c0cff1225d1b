"""Images of a program as a data set on disk, for as long as they are trained on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from datasets.base import IMAGE_SUFFIXES
from datasets.names import printable
from utils.system.errors import UsageError

GoodImage = str | PathLike | np.ndarray | Image.Image


@contextmanager
def staged(good: Sequence[GoodImage], category: str) -> Iterator[Path]:
    """A folder called `category` with the images in their order: links to files, and PNG files of the others; it is
    gone afterwards. Raises UsageError for what is no image file, no array and no Pillow image, or none at all."""
    if not len(good):
        raise UsageError("`good` holds no images")
    with TemporaryDirectory(prefix="aand-") as parent:
        root = Path(parent) / category
        root.mkdir()
        for number, image in enumerate(good):
            _stage(root, number, image)
        yield root


def _stage(root: Path, number: int, image: GoodImage) -> None:
    if isinstance(image, str | PathLike):
        path = Path(image).absolute()
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            raise UsageError(f"`good`: {printable(path)} is no image file ({', '.join(IMAGE_SUFFIXES)})")
        os.symlink(path, root / f"{number:06}-{path.name}")
        return
    if isinstance(image, np.ndarray):
        fits = image.dtype in (np.uint8, np.uint16) and image.ndim in (2, 3) and image.size
        if not fits or (image.ndim == 3 and (image.shape[2] != 3 or image.dtype != np.uint8)):
            raise UsageError(f"`good`: number {number} is {image.dtype} {image.shape}, not uint8 (H, W, 3), (H, W), or "
                             "uint16 (H, W)")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise UsageError(f"`good`: number {number} is a {type(image).__name__}, not a path, an array or a Pillow image")
    image.save(root / f"{number:06}.png")
