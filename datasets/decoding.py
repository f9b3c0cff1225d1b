"""Decode an image file: its values as they are stored, turned upright, and what it says of their scale.

Pillow decodes all but colours of 16 bits, of which it gives the upper 8: those OpenCV does. Whatever decoding raises
comes out as it is: datasets/base.py makes DataErrors of it.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.formats import UNREAD, open_regular, why_unread
from datasets.levels import Range, Scale, depth_of_white
from datasets.marks import HEAD, mark_in

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")  # whatever a file is called; others can run programs
ORIENTATION, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 274, 258, 262, 339  # tags of EXIF and TIFF
HIGHEST, HIGHEST_OF_ANY_KIND = 281, 341  # MaxSampleValue and SMaxSampleValue
WHITE_IS_ZERO, SIGNED = 0, 2
COLOUR_CHANNELS = {0: 1, 2: 3, 4: 1, 6: 3}  # by the colour type of a PNG
UPPER = 1 if sys.byteorder == "little" else 0  # byte of 16 bits
MOST_CHUNKS = 1000  # of a PNG before its pixels
BLOCK = 2**20  # values that are converted at once
MOST_SCANS = 100  # of a JPEG, each of which goes over all its pixels; programs write about ten


@contextmanager
def open_image(path: Path, most_pixels: int) -> Iterator[ImageFile]:
    """Open and decode an image file; of one with several images, the first."""
    with open_regular(path) as file:
        if path.suffix.lower() in UNREAD:  # raw files would open as TIFFs, and show a preview
            raise ValueError(why_unread(path))
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            unknown = f"it is no image that can be read ({', '.join(FORMATS)}), or it is damaged"
            raise ValueError(why_unread(path) or unknown) from None
        with image:
            if image.format in ("JPEG", "MPO") and _count_scans(file) > MOST_SCANS:
                raise ValueError(f"it has more than {MOST_SCANS} scans, and may take hours to be read")
            yield ImageFile(image, file, most_pixels)


def is_deep_file(path: Path) -> bool:
    """Tell whether an image file has more than 8 bits a channel, by its header."""
    with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
        return _is_deep(image) or _bits(image, file)[0] > 8


class ImageFile:
    """A decoded image, upright. Raises ValueError for more than `most_pixels`.

    file: what it is of, where that is open; without, Pillow's own values of it must do.
    """

    def __init__(self, image: Image.Image, file: BinaryIO | None = None, most_pixels: int | None = None):
        if most_pixels is not None and image.width * image.height > most_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {most_pixels:,}")
        self.image, self.format = image, image.format
        tags = dict(getattr(image, "tag_v2", {}))  # of a TIFF
        self.sample_format = _first(tags.get(SAMPLE_FORMAT, 1))
        self.white_is_zero = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and _is_deep(image)
        bits, self.depth = _bits(image, file)
        self.declared = 4095.0 if bits == 12 else 0.0
        if bits == 8 and self.sample_format == SIGNED:
            raise ValueError("it has signed 8-bit values, which are not read; convert it to unsigned ones")
        self.has_more = image.format != "MPO" and getattr(image, "is_animated", False)  # phones' MPO: one photograph
        has_deep_colours = bits > 8 and not _is_deep(image)
        content = _read_from_start(file) if has_deep_colours and file else b""  # before Pillow closes it
        self.mark = mark_in(_read_from_start(file, HEAD)) if file else None
        image.load()
        self.orientation = tags.get(ORIENTATION) or image.getexif().get(ORIENTATION, 1)
        self.turned = 1 if tags else self.orientation  # Pillow turns TIFFs itself
        self.colours = _deep_colours(content, image) if has_deep_colours else None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        width, height = self.image.size
        turned = isinstance(self.turned, int) and 5 <= self.turned <= 8
        return (width, height) if turned else (height, width)

    @property
    def is_deep(self) -> bool:
        """Tell whether there are more than 8 bits a channel."""
        return self.colours is not None or _is_deep(self.image)

    def pixels(self) -> np.ndarray:
        """The values: uint8 (H, W, 3) RGB; of deep images uint16, int32, uint32 or float32 (H, W) or (H, W, 3)."""
        if self.colours is not None:
            return _upright(self.colours, self.turned)
        if not _is_deep(self.image):
            return _upright(np.asarray(_to_rgb(self.image)), self.turned)
        values = np.asarray(self.image)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if self.image.mode == "I" and self.format == "PNG":
            values = values.astype(np.uint16)  # of older versions of Pillow
        elif self.image.mode == "I" and self.format == "TIFF" and self.sample_format != SIGNED:
            values = values.view(np.uint32)
        return _upright(values, self.turned)

    def range_of(self, values: np.ndarray) -> Range:
        """The range of `pixels()`. Raises ValueError for values that are no numbers."""
        if values.dtype == np.uint8:
            return Range("uint8", 0.0, 255.0)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("it holds NaN or infinite values")
        kind = "int32" if values.dtype == np.uint32 else values.dtype.name
        return Range(kind, low, high, self.declared, self.depth)

    def alpha(self) -> np.ndarray | None:
        """The alpha channel uint8 (H, W); None where there is none."""
        image = self.image
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        if "A" not in image.getbands():
            return None
        return _upright(np.asarray(image.getchannel("A")), self.turned)

    def indices(self) -> np.ndarray | None:
        """The places in the palette uint8 (H, W); None of an image without one."""
        return _upright(np.asarray(self.image), self.turned) if self.image.mode == "P" else None


def to_rgb8(values: np.ndarray, scale: Scale, inverted: bool = False) -> np.ndarray:
    """Values (H, W) or (H, W, 3) as uint8 (H, W, 3), the scale's black and white becoming 0 and 255, or inverted."""
    if values.dtype == np.uint8:
        return values
    black, white = scale
    result = np.empty((*values.shape[:2], 3), np.uint8)
    rows = max(1, BLOCK // max(1, values[:1].size))
    for start in range(0, len(values), rows):
        block = values[start : start + rows].astype(np.float64)
        levels = np.clip(np.rint((block - black) * 255 / (white - black)), 0, 255).astype(np.uint8)
        levels = 255 - levels if inverted else levels
        result[start : start + rows] = levels if values.ndim == 3 else levels[..., None]
    return result


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # through RGBA, or Pillow warns
    return image.convert("RGB")


def _upright(values: np.ndarray, orientation: object) -> np.ndarray:
    """Values (H, W, ...) turned as an EXIF orientation says; anything but 2..8 turns nothing."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _read_from_start(file: BinaryIO, most: int = -1) -> bytes:
    """The first bytes of a file, or all, which stays where it is."""
    place = file.tell()
    file.seek(0)
    content = file.read(most)
    file.seek(place)
    return content


def _deep_colours(content: bytes, image: Image.Image) -> np.ndarray:
    """RGB values uint16 (H, W, 3) of a file, whose upper halves are what Pillow has read."""
    if content and image.mode in ("RGB", "RGBA"):
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is not None and values.dtype == np.uint16 and values.ndim == 3:
            values = np.ascontiguousarray(values[..., 2::-1])  # BGR or BGRA
            if np.array_equal(values.view(np.uint8)[..., UPPER::2], np.asarray(_to_rgb(image))):
                return values
    raise ValueError("its colours of 16 bits cannot be read; convert it to 8 bits, or to a PNG file")


def _count_scans(file: BinaryIO) -> int:
    """Marks of the beginning of a scan in a JPEG; the file stays where it is."""
    place, found, last = file.tell(), 0, b""
    file.seek(0)
    while block := file.read(BLOCK):
        found += (last + block).count(b"\xff\xda")
        last = block[-1:]
    file.seek(place)
    return found


def _bits(image: Image.Image, file: BinaryIO | None) -> tuple[int, int]:
    """The bits a channel of an image that is opened, and the fewer ones (0: none) that it says are significant."""
    if image.format == "PNG":
        return _png_bits(file) if file else (8, 0)
    tags = getattr(image, "tag_v2", {})
    bits = _first(tags.get(BITS, 8))
    depth = depth_of_white(_first(tags.get(HIGHEST_OF_ANY_KIND, tags.get(HIGHEST))))
    return bits, depth if depth < bits else 0


def _png_bits(file: BinaryIO) -> tuple[int, int]:
    """The same of a PNG file, which stays where it is."""
    place = file.tell()
    file.seek(24)
    (bits, colour), significant = file.read(2), 0
    file.seek(33)  # behind the first chunk
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":
            break
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] == b"sBIT":
            significant = max(file.read(min(length, COLOUR_CHANNELS.get(colour, 3))), default=0)
            break
        file.seek(length + 4, os.SEEK_CUR)
    file.seek(place)
    return bits, significant if bits == 16 and 0 < significant < 16 else 0


def _first(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value else value
