"""What every data set has in common: samples, and the one way an image or a mask is read.

A reader (one file per layout) turns a folder into `Sample`s; `load_image` and `load_mask` turn a sample into arrays.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
READ_ERRORS = (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError)  # of Pillow


class DataError(ValueError):
    """A data set that cannot be used; the message names the path and what would help."""


@dataclass(frozen=True)
class Sample:
    """One image of a category.

    `mask_path` is None for good images, and for anomalous images of a data set that has no masks for them.
    `name` is unique within its split, e.g. "good/000" or "broken_large/013".
    """

    image_path: Path
    label: int  # 1 = anomalous
    defect: str  # "good", or the kind of the defect
    mask_path: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.defect}/{self.image_path.stem}"


def list_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, sorted by name; empty if there is no such folder.

    Raises DataError for two images whose names differ only in the suffix: masks and outputs are paired by stem.
    """
    paths = find_images(folder)
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            raise DataError(f"{by_stem[path.stem]} and {path} have the same name up to the suffix; rename one of them")
        by_stem[path.stem] = path
    return paths


def find_images(folder: Path) -> list[Path]:
    """As `list_images`, without a look at the names: for images that are only counted."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, sorted by name, hidden ones left out; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def load_image(path: Path, size: int | None = None) -> np.ndarray:
    """Read an image as RGB.

    Grey, palette, RGBA (alpha dropped) and 16-bit images are converted, EXIF orientation is applied; with `size` the
    image is resized (bicubic) to a square.

    Returns uint8 (H, W, 3). Raises DataError naming the file if it cannot be read.
    """
    image = _to_rgb(_open(path))
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image after its EXIF orientation.

    Raises DataError naming the file if it cannot be read.
    """
    width, height = _open(path).size  # not from the header: TIFFs come turned already, PNGs may name it at their end
    return height, width


def load_mask(path: Path, size: int | None = None) -> np.ndarray:
    """Read a ground-truth mask: anything above 0 is anomalous (above 127 in a lossy format, whose zeros are noisy).

    With `size` it is resized to a square with nearest neighbour, so that it stays 0/1.

    Returns uint8 (H, W) of 0 and 1. Raises DataError naming the file if it cannot be read.
    """
    image = _open(path)
    deep = image.mode.startswith("I") or image.mode == "F"  # taken as they are: a 1 of 65535 is anomalous too
    values = np.asarray(image) if deep else np.asarray(_to_rgb(image)).max(axis=2)
    mask = (values > (127 if path.suffix.lower() in LOSSY_SUFFIXES else 0)).astype(np.uint8)
    if size is not None:
        mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    return mask


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except READ_ERRORS as error:
        raise DataError(f"cannot read image {path}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 or 32 bits per pixel; Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.float64)
        if image.mode.startswith("I;16") or values.max(initial=0) > 255:
            values = values / 257  # 65535 -> 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # through RGBA, or Pillow warns
    return image.convert("RGB")
