"""What is known of image files and masks without opening them again: kept in `<cache_dir>/checks.json`.

    facts = FactStore(Path("cache"))
    facts.of_image(path).digest, facts.of_mask(path).anomalous
    facts.save()

A file is opened again when its size or its time of change is another.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import __version__ as pillow_version

from datasets.base import DataError, load_image, load_mask
from datasets.names import printable
from utils.misc import write_text
from utils.own_files import CHECKS, begins_as, may_be_replaced

NAME = "checks.json"
MADE_BY = f"checks 1, Pillow {pillow_version}"  # another Pillow may read other files


class Facts(NamedTuple):
    """What is known of a file; of one that cannot be read only why."""

    height: int = 0
    width: int = 0
    digest: str = ""  # of an image: of its decoded content
    anomalous: bool = False  # of a mask: whether any pixel is
    unreadable: str = ""


Entry = tuple[int, int, Facts]  # bytes and time of change (ns) of the file
Entries = dict[str, dict[str, Entry]]  # "image" or "mask" -> absolute path -> entry
ENTRY_TYPES = (int, int, int, int, str, bool, str)


class FactStore:
    """The facts of files, from `checks.json` in a folder or, where it does not know them, from the files.

    May be asked from several threads.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.known = _read(self.path)
        self.new: Entries = {"image": {}, "mask": {}}

    def of_image(self, path: Path) -> Facts:
        return self._look_up("image", path, _see_image)

    def of_mask(self, path: Path) -> Facts:
        return self._look_up("mask", path, _see_mask)

    def save(self) -> None:
        """Add what was found out to the file; where that cannot be written, say so on stderr."""
        if not any(self.new.values()):
            return
        now = _read(self.path)  # another process may have added to it
        content = {"made_by": MADE_BY}
        for role, entries in self.new.items():
            merged = now[role] | entries
            content[role] = {path: [size, changed, *facts] for path, (size, changed, facts) in merged.items()}
        if os.path.lexists(self.path) and not may_be_replaced(self.path, begins_as(CHECKS)):
            text = f"{self.path} is no file that this program wrote: what is known of files is not kept (--cache_dir)"
            print(printable(text), file=sys.stderr)
            return
        try:
            write_text(self.path, json.dumps(content) + "\n")
        except OSError as error:
            text = f"{self.path} cannot be written ({error}): files will be opened again next time"
            print(printable(text), file=sys.stderr)

    def _look_up(self, role: str, path: Path, see: Callable[[Path], Facts]) -> Facts:
        try:
            status = path.stat()
        except OSError as error:
            return Facts(unreadable=error.strerror)
        name, state = os.path.abspath(path), (status.st_size, status.st_mtime_ns)
        if name in self.known[role] and self.known[role][name][:2] == state:
            return self.known[role][name][2]
        try:
            facts = see(path)
        except DataError as error:
            reason = error.__cause__
            if isinstance(reason, OSError) and reason.strerror:  # the system's, e.g. no permission: can be mended
                return Facts(unreadable=reason.strerror)  # without a change of the file, so it is not kept
            facts = Facts(unreadable=str(reason))
        self.new[role][name] = (*state, facts)
        return facts


def _see_image(path: Path) -> Facts:
    pixels = load_image(path)
    digest = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16)
    return Facts(*pixels.shape[:2], digest=digest.hexdigest())


def _see_mask(path: Path) -> Facts:
    mask = load_mask(path)
    return Facts(*mask.shape, anomalous=bool(mask.any()))


def _read(path: Path) -> Entries:
    """The entries of a file; none if there is no such file, or it is damaged or not one of these."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_by"] == MADE_BY:
            return {role: {name: _entry(row) for name, row in content[role].items()} for role in ("image", "mask")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass  # it is written anew
    return {"image": {}, "mask": {}}


def _entry(row: list) -> Entry:
    if [type(value) for value in row] != list(ENTRY_TYPES):
        raise ValueError(f"not an entry: {row}")
    return row[0], row[1], Facts(*row[2:])
