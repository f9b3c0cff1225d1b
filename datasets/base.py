"""Common parts of all data sets: samples, and the one way an image or a mask is read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.decoding import ImageFile, is_deep_file, open_image, to_rgb8
from datasets.drawn_masks import draw_mask, is_drawn
from datasets.levels import FAR_BELOW_WHITE, Levels, Range
from datasets.marks import NO_PHOTOGRAPHS
from datasets.masks import anomalous_pixels, count_grey_regions, shrink_mask
from datasets.names import PrintableError, printable
from datasets.sizes import Size, height_width

IMAGE_SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif")
MAX_PIXELS = 89_478_485  # of an image: from here on Pillow warns of decompression bombs; decoded, it takes 1.3 GB
SEVERAL_IMAGES = "file of several images, of which the first is used"
BICUBIC_REACH = 3  # source pixels, times the reduction, and one more: what a pixel is made of
LARGEST_PASS = 2**24  # pixels between the passes of a resize, or twice those of the image where these are more

Tell = Callable[[str, str], None]  # what may be wrong, and the details of this image

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # what it warns of is an error here
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged metadata, without a file's name


class DataError(PrintableError, ValueError):
    """A data set that cannot be used; the message names the path and what would help."""


class Mask(NamedTuple):
    """A ground-truth mask, upright; orientation, has_more, grey_regions (not anomalous ones): of its image file."""

    pixels: np.ndarray  # uint8 (H, W) of 0 and 1
    orientation: object = 1
    has_more: bool = False
    grey_regions: int = 0


class Picture(NamedTuple):
    """The content of an image file, upright, before it is known which values are black and white.

    values: as of `datasets.decoding.ImageFile.pixels`; orientation: EXIF's.
    """

    path: Path
    values: np.ndarray
    range: Range
    white_is_zero: bool
    has_more: bool
    orientation: object

    def rgb(self, levels: Levels | None = None, tell: Tell | None = None) -> np.ndarray:
        """The image as of `load_image`."""
        if self.has_more and tell:
            tell(SEVERAL_IMAGES, "")
        with _reading(self.path):
            return _convert(self, levels, tell)


@dataclass(frozen=True)
class Sample:
    """One image of a category.

    `mask_path` is None for good images, and for anomalous ones without a mask. In a `blank_mask`, which good images may
    have, nothing must be anomalous. `folder` is the path below the defect's folder, if any. `name` is unique within its
    split, e.g. "good/000" or "broken_large/013".
    """

    image_path: Path
    label: int  # 1 = anomalous
    defect: str  # "good", or the kind of the defect
    mask_path: Path | None = None
    blank_mask: Path | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.defect, self.folder, self.image_path.stem)))


def load_image(
    path: Path, size: Size | None = None, most_pixels: int = MAX_PIXELS, levels: Levels | None = None,
    tell: Tell | None = None,
) -> np.ndarray:
    """Read an image as RGB, upright, with `size` resized (bicubic) to it; alpha is dropped.

    levels: which values are black and white where the file does not say, as the training images decided; without, this
    image alone decides, as far as it can. tell: called for what may be wrong with an image that is used.

    Returns uint8 (H, W, 3). Memory: at most 24 bytes a pixel of the file, whatever its shape. Raises DataError naming
    the file if it cannot be read, has more than `most_pixels`, values that do not fit the levels, or is a map or mask
    that a program of ours wrote.
    """
    pixels = read_picture(path, most_pixels).rgb(levels, tell)
    return pixels if size is None else np.asarray(resize(Image.fromarray(pixels), size))


def is_deep(path: Path) -> bool:
    """Read from an image's header whether it has more than 8 bits a channel. Raises DataError naming a bad file."""
    with _reading(path):
        return is_deep_file(path)


def read_picture(path: Path, most_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image file. Raises DataError naming it if it cannot be read, or is of our own."""
    with decoded(path, most_pixels) as image:
        return _content(image, path)


def resize(image: Image.Image, size: Size, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    """An image, or its part in a box (left, top, right, bottom), at `size` pixels: Pillow's bicubic filter.

    Width first, then height; height first of an image so high and narrow that the first pass would make a far larger
    one of it. Both passes round, so their order matters, and Pillow chooses it by the image's shape from version 13 on,
    otherwise than before: called for one pass at a time, every version gives the same pixels.
    """
    height, width = height_width(size)
    left, top, right, bottom = box or (0, 0, image.width, image.height)
    reach = BICUBIC_REACH * max(1.0, (bottom - top) / height)
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(bottom + reach))
    if (first, last) != (0, image.height):  # rows that have no influence
        image, top, bottom = image.crop((0, first, image.width, last)), top - first, bottom - first
    if width * image.height > max(LARGEST_PASS, 2 * image.width * image.height):
        low = image.resize((image.width, height), Image.Resampling.BICUBIC, box=(0, top, image.width, bottom))
        return low.resize((width, height), Image.Resampling.BICUBIC, box=(left, 0, right, height))
    narrow = image.resize((width, image.height), Image.Resampling.BICUBIC, box=(left, 0, right, image.height))
    return narrow.resize((width, height), Image.Resampling.BICUBIC, box=(0, top, width, bottom))


def as_rgb(image: Image.Image | np.ndarray, levels: Levels | None = None) -> np.ndarray:
    """A Pillow image or an array in memory, converted as `load_image` converts that of a file.

    Arrays are uint8 or uint16 of (H, W), (H, W, 3) RGB or (H, W, 4) RGBA. A Pillow image that is opened but not decoded
    yet is read as its file; of colours of 16 bits that Pillow has decoded, the upper 8 are left. Returns uint8
    (H, W, 3). Raises DataError for what is no such image.
    """
    try:
        if isinstance(image, np.ndarray):
            return _convert_array(image, levels)
        file = getattr(image, "fp", None)
        if file is None or image.tell():
            return _convert(_content(ImageFile(image, most_pixels=MAX_PIXELS)), levels)
        place = file.tell()
        file.seek(0)
        try:  # anew, and not by name: then Pillow maps TIFFs, and garbles turned ones
            return _convert(_content(ImageFile(Image.open(file), file, MAX_PIXELS)), levels)
        finally:
            file.seek(place)
    except Exception as error:
        raise DataError(f"cannot use the image: {describe(error)}") from error


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of an upright image. Raises DataError naming the file if it cannot be read."""
    with decoded(path, photograph=False) as image:  # the header is not enough: PNGs may turn at their end
        return image.size


def load_mask(path: Path, size: Size | None = None) -> np.ndarray:
    """Read a ground-truth mask as of `read_mask`, with `size` as `shrink_mask` resizes it: uint8 (H, W) of 0 and 1."""
    mask = read_mask(path).pixels
    return mask if size is None else shrink_mask(mask, size)


def read_mask(path: Path) -> Mask:
    """Read a ground-truth mask: an image as `anomalous_pixels` understands it, shapes in a JSON file, or a folder of
    images that count together. Raises DataError naming the file if it cannot be read."""
    if path.is_dir() and path.suffix.lower() not in IMAGE_SUFFIXES:
        masks = [read_mask(part).pixels for part in sorted(path.iterdir()) if part.suffix.lower() in IMAGE_SUFFIXES]
        if len({mask.shape for mask in masks}) != 1:
            raise DataError(f"the folder {printable(path)} does not hold masks of one size")
        return Mask(np.maximum.reduce(masks))
    if is_drawn(path):
        with _reading(path):
            return Mask(draw_mask(path))
    with decoded(path, photograph=False) as image:
        pixels = anomalous_pixels(image)
        return Mask(pixels, image.orientation, bool(image.has_more), count_grey_regions(image, pixels))


def describe(error: BaseException) -> str:
    """Text of an error in one printable line, its type where it says nothing."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return printable(text)


@contextmanager
def decoded(path: Path, most_pixels: int = MAX_PIXELS, photograph: bool = True) -> Iterator[ImageFile]:
    """Open and decode an image or, with photograph=False, a mask, which may also be one that a program of ours wrote.

    Whatever goes wrong while it is open becomes a DataError naming the file: decoders raise many unrelated types.
    """
    with _reading(path), open_image(path, most_pixels) as image:
        if photograph and image.mark in NO_PHOTOGRAPHS:
            raise ValueError(f"it is no photograph but an {image.mark}, written by this program")
        yield image


class Reader:
    """Decode files each time they are asked for; what keeps them is a subclass. DataErrors name the file."""

    size = 0  # bytes that are kept

    def picture(self, path: Path) -> Picture:
        """Decode an image."""
        return read_picture(path)

    def mask(self, path: Path) -> np.ndarray:
        """Decode a mask uint8 (H, W) of 0 and 1."""
        return load_mask(path)

    def image(self, path: Path, levels: Levels | None = None) -> np.ndarray:
        """Decode an image uint8 (H, W, 3)."""
        return self.picture(path).rgb(levels)

    def drop(self, *roles: str) -> None:
        """Give back the memory of what is kept: here nothing."""

    @property
    def last(self) -> Reader:
        """The same for images that are not asked for again."""
        return self


FROM_DISK = Reader()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DataError(f"cannot read image {printable(path)}: {describe(error)}") from error


def _content(image: ImageFile, path: Path = Path()) -> Picture:
    values = image.pixels()
    return Picture(path, values, image.range_of(values), image.white_is_zero, bool(image.has_more), image.orientation)


def _convert(picture: Picture, levels: Levels | None, tell: Tell | None = None) -> np.ndarray:
    if picture.values.dtype == np.uint8:
        return picture.values
    if levels and tell and (doubt := levels.doubt(picture.range)):
        tell(FAR_BELOW_WHITE, doubt)
    scale = (levels or Levels.of([picture.range])).scale_of(picture.range)
    return to_rgb8(picture.values, scale, picture.white_is_zero)


def _convert_array(array: np.ndarray, levels: Levels | None) -> np.ndarray:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or array.dtype not in (np.uint8, np.uint16) or not array.size:
        raise ValueError(f"expected uint8 or uint16 of (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"{array.shape[1]} x {array.shape[0]} pixels are more than {MAX_PIXELS:,}")
    colours = array[..., :3] if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    values = Range("uint16", float(colours.min()), float(colours.max()))
    return to_rgb8(colours, (levels or Levels.of([values])).scale_of(values))
