"""What every data set has in common: samples, and the one way an image or a mask is read.

A reader (one file per layout) turns a folder into `Sample`s; `load_image` and `load_mask` turn a sample into arrays.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.marks import NO_PHOTOGRAPHS, mark_of
from datasets.names import PrintableError

IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
)  # fmt: skip
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")  # whatever a file is called; others can run programs
MAX_PIXELS = 89_478_485  # of an image: from here on Pillow warns of decompression bombs; decoded, it takes 1.3 GB
READ_ERRORS = (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError)  # of Pillow

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # what it warns of is an error here


class DataError(PrintableError, ValueError):
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


def load_image(path: Path, size: int | None = None, most_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image as RGB.

    Grey, palette, RGBA (alpha dropped) and 16-bit images are converted, EXIF orientation is applied; with `size` the
    image is resized (bicubic) to a square.

    Returns uint8 (H, W, 3). Raises DataError naming the file if it cannot be read, has more than `most_pixels`, or is a
    heat map or mask that a program of ours wrote.
    """
    if (mark := mark_of(path)) in NO_PHOTOGRAPHS:
        reason = f"it is no photograph but an {mark}, written by this program"
        raise DataError(f"cannot read image {path}: {reason}") from ValueError(reason)
    image = _open(path, _to_rgb, most_pixels)
    if size is not None:
        image = resize(image, size)
    return np.asarray(image)


def resize(image: Image.Image, size: int, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """An image, or its part in a box (left, top, right, bottom), at size x size pixels: Pillow's bicubic filter.

    Width first, then height. Both passes round, so their order matters, and Pillow chooses it by the image's shape from
    version 13 on, otherwise than before: called for one pass at a time, every version gives the same pixels.
    """
    left, top, right, bottom = box or (0, 0, image.width, image.height)
    narrow = image.resize((size, image.height), Image.Resampling.BICUBIC, box=(left, 0, right, image.height))
    return narrow.resize((size, size), Image.Resampling.BICUBIC, box=(0, top, size, bottom))


def as_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """A Pillow image or an array in memory, converted as `load_image` converts that of a file.

    Arrays are uint8 or uint16 of (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. Returns uint8 (H, W, 3). Raises DataError for
    what is no such image.
    """
    try:
        if isinstance(image, np.ndarray):
            image = _from_array(image)
        _check_size(image)
        image.load()  # before its orientation is asked for: TIFFs are turned by it
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))  # a copy: the caller's image stays as it is
    except READ_ERRORS as error:
        raise DataError(f"cannot use the image: {error}") from error


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
    image = _open(path, lambda image: image if _is_deep(image) else _to_rgb(image))
    values = np.asarray(image)  # deep ones as they are: a 1 of 65535 is anomalous too
    values = values if _is_deep(image) else values.max(axis=2)
    mask = (values > (127 if path.suffix.lower() in LOSSY_SUFFIXES else 0)).astype(np.uint8)
    if size is not None:
        mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    return mask


def _open(
    path: Path, convert: Callable[[Image.Image], Image.Image] = lambda image: image, most_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An image, turned as its EXIF orientation says, and converted; of files with several, the first."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            _check_size(image, most_pixels)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return convert(image)
    except READ_ERRORS as error:
        raise DataError(f"cannot read image {path}: {error}") from error


def _check_size(image: Image.Image, most_pixels: int = MAX_PIXELS) -> None:
    if image.width * image.height > most_pixels:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {most_pixels:,}")


def _from_array(array: np.ndarray) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or array.dtype not in (np.uint8, np.uint16) or not array.size:
        raise ValueError(f"expected uint8 or uint16 of (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}")
    if array.ndim == 3 and array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)  # as Pillow reads 16-bit colours of files
    return Image.fromarray(np.ascontiguousarray(array))


def _is_deep(image: Image.Image) -> bool:
    """Whether it has 16 or 32 bits per pixel."""
    return image.mode.startswith("I") or image.mode == "F"


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_deep(image):  # Pillow's own conversion clips at 255
        values = np.array(image, np.float32)  # exact for what is not clipped below; doubles would take twice the memory
        highest = values.max(initial=0)
        if np.isnan(highest):
            raise ValueError("it holds NaN")
        if image.mode.startswith("I;16") or highest > 255:
            values /= 257  # 65535 -> 255
        np.clip(np.rint(values, out=values), 0, 255, out=values)
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # through RGBA, or Pillow warns
    return image.convert("RGB")
