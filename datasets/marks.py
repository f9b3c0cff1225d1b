"""Pictures of our own say so: heat maps, anomaly maps and masks can be told from photographs wherever they lie.

A mark is the picture's "Software": a text chunk at the beginning of a PNG file, tag 305 of a TIFF file.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.formats import read_head

HEAT_MAP, ANOMALY_MAP, ANOMALY_MASK = "AAND heat map", "AAND anomaly map", "AAND anomaly mask"
FOREGROUND, DEMO = "AAND foreground mask", "AAND demo image"
NO_PHOTOGRAPHS = (HEAT_MAP, ANOMALY_MAP, ANOMALY_MASK, FOREGROUND)
MOST_SIDE = 1_000_000  # pixels that a PNG file may be high or wide for libpng
HEAD = 1024  # bytes of a file, in which its mark is
HEADER_END = 33  # of a PNG file: signature and IHDR
SOFTWARE = 305  # tag of TIFF files
MARKED = re.compile(
    rb"(?:\x89PNG\r\n\x1a\n.*?tEXtSoftware\0|(?:II\*\0|MM\0\*).*?)("
    + b"|".join(re.escape(mark.encode()) for mark in (*NO_PHOTOGRAPHS, DEMO))
    + rb")",
    re.DOTALL,
)


def png_bytes(pixels: np.ndarray, mark: str) -> bytes:
    """A PNG file of uint8 (H, W) grey or (H, W, 3) RGB, with a mark. Raises OSError for more than MOST_SIDE pixels."""
    if max(pixels.shape) > MOST_SIDE:
        raise OSError(f"it would be a PNG file of more than {MOST_SIDE:,} pixels in height or width")
    order = pixels if pixels.ndim == 2 else pixels[..., ::-1]  # RGB -> BGR
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(order))
    file, content = encoded.tobytes(), b"tEXtSoftware\0" + mark.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return file[:HEADER_END] + chunk + file[HEADER_END:]


def tiff_bytes(pixels: np.ndarray, mark: str) -> bytes:
    """A TIFF file of float32 (H, W), with a mark."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", tiffinfo={SOFTWARE: mark})
    return file.getvalue()


def mark_of(path: Path) -> str | None:
    """The mark of a picture file; None for any other file, or none that can be read."""
    return mark_in(read_head(path, HEAD))


def mark_in(head: bytes) -> str | None:
    """The mark in the first HEAD bytes of a file; None if there is none."""
    mark = MARKED.match(head)
    return mark and mark.group(1).decode()
