"""Image files written byte by byte, for what Pillow cannot write: depths, tags and chunks of every kind."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

SHORT, LONG = 3, 4
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS, SAMPLE_FORMAT = 273, 277, 278, 279, 339


def write_tiff(path: Path, values: np.ndarray, tags: dict[int, int] | None = None, data: bytes | None = None) -> Path:
    """Write values (H, W) or (H, W, 3) as an uncompressed little-endian TIFF; `tags` add to its tags or replace them.

    data: the bytes of the pixels where they are not those of the array, e.g. packed ones.
    """
    height, width = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder("<")).tobytes() if data is None else data
    entries = {
        WIDTH: width, HEIGHT: height, BITS: 8 * values.itemsize, COMPRESSION: 1, PHOTOMETRIC: 2 if samples > 1 else 1,
        OFFSETS: 8, SAMPLES: samples, ROWS: height, COUNTS: len(data),
        SAMPLE_FORMAT: {"u": 1, "i": 2, "f": 3}[values.dtype.kind],
    } | (tags or {})
    directory, extra = 8 + len(data), b""
    place = directory + 2 + 12 * len(entries) + 4
    rows = b""
    for tag, value in sorted(entries.items()):
        if tag in (BITS, SAMPLE_FORMAT) and samples > 1:  # one for each channel: they do not fit into the entry
            rows += struct.pack("<HHII", tag, SHORT, samples, place + len(extra))
            extra += struct.pack(f"<{samples}H", *[value] * samples)
        else:
            kind = LONG if tag in (OFFSETS, COUNTS) else SHORT
            rows += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
    head = b"II*\0" + struct.pack("<I", directory)
    path.write_bytes(head + data + struct.pack("<H", len(entries)) + rows + bytes(4) + extra)
    return path


def write_png(path: Path, values: np.ndarray, significant: int | bytes | None = None, last: bytes = b"") -> Path:
    """Write uint8 or uint16 values (H, W) or (H, W, 2..4) as a PNG; significant: the bits that its sBIT names, of each
    channel if bytes; last: a chunk's name and content that stand behind the pixels."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * values.itemsize, colour, 0, 0, 0))]
    bits = bytes([significant] * channels) if isinstance(significant, int) else significant
    chunks += [(b"sBIT", bits)] if bits else []
    chunks += [(b"IDAT", zlib.compress(lines, 1))]
    chunks += [(last[:4], last[4:])] if last else []
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in (*chunks, (b"IEND", b""))))
    return path


def pack_12_bits(values: np.ndarray) -> bytes:
    """Values below 4096 (H, W), of an even width, as TIFFs of 12 bits hold them: two in three bytes."""
    first, second = values[:, ::2].astype(np.uint32), values[:, 1::2].astype(np.uint32)
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8).tobytes()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
