"""Image files that are valid, or nearly so, drawn by hypothesis: depths, tags, chunks and EXIF of every kind."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.support.raw_files import BITS, PHOTOMETRIC, pack_12_bits, write_png, write_tiff

ORIENTATION = 274
EXIF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value
KNOWN = [ORIENTATION, 270, 271, 282, 296, 306, 0x8298, 0x8769, 0x8825, 0xA005, 0x9286]
TAGS = st.sampled_from(KNOWN) | st.integers(1, 0xFFFF)


class Drawn(NamedTuple):
    """A file, the values that it holds (H, W), whether white is 0, and its orientation where that is certain."""

    path: Path
    values: np.ndarray
    white_is_zero: bool
    orientation: int | None


@st.composite
def exif(draw: st.DrawFn) -> bytes:
    """An EXIF block: entries of every type, whose values lie in it, outside of it, or in a loop of directories."""
    order = draw(st.sampled_from("<>"))
    entries = draw(st.lists(st.tuples(TAGS, st.sampled_from(sorted(EXIF_TYPES)), st.integers(0, 40)), max_size=6))
    if draw(st.booleans()):
        entries.append((ORIENTATION, 3, 1))
    rows = b""
    for tag, kind, count in entries:
        value = draw(st.binary(min_size=4, max_size=4))
        if EXIF_TYPES[kind] * count > 4:
            value = struct.pack(order + "I", draw(st.integers(0, 300)))
        if (tag, kind, count) == (ORIENTATION, 3, 1):
            value = struct.pack(order + "HH", draw(st.integers(0, 9)), 0)
        rows += struct.pack(order + "HHI", tag, kind, count) + value
    following = draw(st.sampled_from([0, 0, 8, 2**31]))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + rows + struct.pack(order + "I", following) + draw(st.binary(max_size=120))


@st.composite
def deep_values(draw: st.DrawFn, kind: type = np.uint16, lowest: int = 0, highest: int = 65535) -> np.ndarray:
    """Values (H, W), of an even width."""
    shape = draw(st.integers(1, 5)), 2 * draw(st.integers(1, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.rint(generator.uniform(lowest, highest, shape)).astype(kind)


@st.composite
def deep_tiffs(draw: st.DrawFn, folder: Path) -> Drawn:
    """A TIFF of 8, 12, 16 or 32 bits, whole or floating, either of whose ends is white."""
    kind = draw(st.sampled_from([np.uint8, np.uint16, "12 bits", np.uint32, np.int32, np.float32]))
    either = kind in (np.uint8, np.uint16, np.float32)  # Pillow knows no others in which white is 0
    photometric, orientation = draw(st.sampled_from([0, 1])) if either else 1, draw(st.integers(1, 8))
    bits = draw(st.integers(4, 12 if kind == "12 bits" else 8 if kind is np.uint8 else 16))
    values = draw(deep_values(np.uint16 if kind == "12 bits" else kind, highest=2**bits - 1))
    tags, data = {ORIENTATION: orientation, PHOTOMETRIC: photometric}, None
    if kind == "12 bits":
        tags[BITS], data = 12, pack_12_bits(values)
    path = write_tiff(folder / "drawn.tif", values, tags, data)
    return Drawn(path, values, photometric == 0, orientation)


@st.composite
def deep_pngs(draw: st.DrawFn, folder: Path) -> Drawn:
    """A PNG of 8 or 16 bits, grey or in colour, with or without alpha and sBIT, and an EXIF block behind its pixels."""
    kind, bits = draw(st.sampled_from([(np.uint8, 8), (np.uint16, 10), (np.uint16, 12), (np.uint16, 16)]))
    values = draw(deep_values(kind, highest=2**bits - 1))
    channels = draw(st.integers(1, 4))
    several = values if channels == 1 else np.repeat(values[..., None], channels, axis=2)
    significant = draw(st.sampled_from([None, bits]))
    block = draw(st.none() | exif())
    path = write_png(folder / "drawn.png", several, significant, b"eXIf" + block if block else b"")
    return Drawn(path, values, False, None if block else 1)


@st.composite
def tagged(draw: st.DrawFn, folder: Path) -> Drawn:
    """A JPEG, PNG, WebP or TIFF by Pillow, with an EXIF block."""
    name = draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
    values = draw(deep_values(np.uint8, highest=255))
    content = io.BytesIO()
    options = {} if name == "TIFF" else {"exif": b"Exif\0\0" + draw(exif())}
    Image.fromarray(values).save(content, name, **options)
    path = folder / "drawn.jpg"  # known by its content
    path.write_bytes(content.getvalue())
    return Drawn(path, values, False, None)


def drawn_files(folder: Path) -> st.SearchStrategy[Drawn]:
    return deep_tiffs(folder) | deep_pngs(folder) | tagged(folder)
