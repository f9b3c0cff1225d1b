"""A checksum of a model file within its own metadata: numbers that a disk or a copy has changed are not taken.

    content = sealed(content)                  # bytes in which UNSEALED stands once
    seal_is_broken(path, seal)                 # seal: what then stands in its place, as the file's reader gives it
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

SEAL_KEY = "aand_seal"  # of the metadata; earlier files do not have it
UNSEALED = "sha256 " + "0" * 64


def sealed(content: bytes) -> bytes:
    """The content with its own checksum, taken as it is with UNSEALED, in place of that."""
    return content.replace(UNSEALED.encode(), f"sha256 {hashlib.sha256(content).hexdigest()}".encode())


def seal_is_broken(path: Path, seal: str) -> bool:
    """Whether a file is another than the one that was sealed so."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(seal.encode())
        sha256 = hashlib.sha256(content[:start])
        sha256.update(UNSEALED.encode())
        sha256.update(content[start + len(UNSEALED) :])
    return start < 0 or seal != f"sha256 {sha256.hexdigest()}"
