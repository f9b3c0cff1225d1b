"""Kind of a file by its name and its first bytes: an image that is read, one of a format that is not, or no image."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

# Formats that are not read, by suffix, and the Python package that opens them
HEIC, AVIF, JPEG_2000 = ("HEIC", "pillow-heif"), ("AVIF", "pillow-avif-plugin"), ("JPEG 2000", "glymur")
JPEG_XL, RAW, PHOTOSHOP = ("JPEG XL", "pillow-jxl-plugin"), ("raw camera", "rawpy"), ("Photoshop", "psd-tools")
UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".heics", ".heifs", ".hif"), HEIC),
    **dict.fromkeys((".avif", ".avifs"), AVIF),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm"), JPEG_2000),
    ".jxl": JPEG_XL,
    **dict.fromkeys(
        (".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef",
         ".srw", ".3fr", ".iiq", ".kdc", ".dcr", ".mrw", ".rwl", ".x3f", ".erf", ".mef", ".mos"),
        RAW,
    ),
    **dict.fromkeys((".psd", ".psb"), PHOTOSHOP),
    **dict.fromkeys((".exr", ".hdr"), ("high dynamic range", "imageio")),
    **dict.fromkeys((".dcm", ".dicom"), ("DICOM", "pydicom")),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), ("portable pixmap", "Pillow")),
    **dict.fromkeys((".tga", ".pcx", ".sgi", ".ico", ".icns", ".xbm", ".xpm", ".dds", ".eps"), ("such", "Pillow")),
    **dict.fromkeys((".svg", ".svgz", ".ai"), ("drawn", "CairoSVG")),
}
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    b"crx ": RAW,
}  # of files that begin with a box "ftyp"
UNREAD_HEADS = {
    b"\x00\x00\x00\x0cjP  ": JPEG_2000,
    b"\xff\x4f\xff\x51": JPEG_2000,
    b"\x00\x00\x00\x0cJXL ": JPEG_XL,
    b"\xff\x0a": JPEG_XL,
    b"8BPS": PHOTOSHOP,
}
READ_HEADS = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"GIF87a", b"GIF89a",
)
NO_IMAGES = (
    ".txt", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".html",
    ".htm", ".css", ".js", ".py", ".ipynb", ".sh", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".odt", ".md5", ".sha256",
)
LONGEST_HEAD = 16  # bytes


def why_unread(path: Path) -> str:
    """Why a file is not read though it is an image, and what helps; "" if it is none of a format that is known so."""
    head, known = read_head(path), UNREAD.get(path.suffix.lower())
    if not known and head[4:8] == b"ftyp":
        known = BRANDS.get(head[8:12])
    known = known or next((known for start, known in UNREAD_HEADS.items() if head.startswith(start)), None)
    if not known:
        return ""
    name, package = known
    return f"{name} images are not read: convert to PNG or JPEG, e.g. with the Python package {package}"


def holds_image(path: Path) -> bool:
    """Tell whether a file's first bytes are those of a format that is read."""
    head = read_head(path)
    return head.startswith(READ_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_head(path: Path, most: int = LONGEST_HEAD) -> bytes:
    """The first bytes of a regular file; none of anything else, and where it fails."""
    try:
        if path.is_file():
            with open_regular(path) as file:
                return file.read(most)
    except OSError:
        pass
    return b""


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read. Raises OSError for what is none: a folder, pipe, device or socket would be waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
