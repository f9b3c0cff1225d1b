"""Names of the maps of many images in one folder: no two the same on any disk, none longer than a disk takes.

    targets = map_paths(Path("maps"), ["crack/000.png", ...])
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

LONGEST = 255  # bytes of a name that nearly every file system takes
HASH = 12  # of a name that had to be changed, in hexadecimal digits


def map_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Where to write files that are to be called `names` (relative paths) in a folder.

    A name that is too long, or that a disk may take for another's since it differs in upper and lower case alone, is
    cut and gets a hash of the whole.
    """
    paths, taken = [], set()
    for name in names:
        path, hashed = Path(name), name
        while len(os.fsencode(path.name)) > LONGEST or _as_disks_see(path) in taken:
            path, hashed = path.with_name(_shortened(Path(name), hashed)), hashed + "'"
        taken.add(_as_disks_see(path))
        paths.append(folder / path)
    return paths


def _shortened(path: Path, hashed: str) -> str:
    ending = f"-{hashlib.sha256(os.fsencode(hashed)).hexdigest()[:HASH]}{path.suffix}"
    return os.fsencode(path.stem)[: LONGEST - len(ending)].decode(errors="ignore") + ending


def _as_disks_see(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
