"""Facts of image files and masks, known without opening them again: kept in `<cache_dir>/checks.json`.

A file is opened again when its size or its time of change is another. checks.json bears a checksum: a damaged one is
not believed, but made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, get_type_hints

import numpy as np
from PIL import __version__ as pillow_version

from datasets.base import FROM_DISK, DataError, Picture, read_mask
from datasets.drawn_masks import state_of
from datasets.levels import Range
from datasets.names import printable
from utils.data.decoded_files import DecodedFiles, key_of
from utils.system.files import write_text
from utils.system.own_files import CHECKS, begins_as, may_be_replaced

NAME = "checks.json"
MADE_BY = f"checks 4, Pillow {pillow_version}"  # another Pillow may read other files
SHIFTS = (257, 256, 64, 16, 4)  # times which values of fewer bits are stored in 16
UNITS = (1, 255, 65535)  # that floats of 1.0 stand for
EXACT = 1 / 64  # of a step: how far floats that were made of whole numbers are from them


class Facts(NamedTuple):
    """Facts of a file; of one that cannot be read only why."""

    height: int = 0
    width: int = 0
    digest: str = ""  # of an image: of its decoded values, whatever file they are in, and of how many bits
    anomalous: float = 0.0  # of a mask: the share of its pixels
    unreadable: str = ""
    kind: str = "uint8"  # this and the next four: of an image, as of `datasets.levels.Range`
    low: float = 0.0
    high: float = 255.0
    white: float = 0.0
    depth: int = 0
    looks_like_mask: bool = False  # of an image: black and one other grey level are all of it
    orientation: int = 1  # as EXIF numbers it, 1 being upright
    has_more: bool = False  # other images behind the first
    grey_regions: int = 0  # of a mask: those that are not anomalous

    @property
    def range(self) -> Range:
        return Range(self.kind, self.low, self.high, self.white, self.depth)


Entry = tuple[int, int, Facts]  # bytes and time of change (ns) of the file
Entries = dict[str, dict[str, Entry]]  # "image" or "mask" -> absolute path -> entry
ENTRY_TYPES = [int, int, *get_type_hints(Facts).values()]


class FactStore:
    """The facts of files, from `checks.json` in a folder or, where it does not know them, from the files.

    decoded: keeps the files that are opened. May be asked from several threads.
    """

    def __init__(self, folder: Path, decoded: DecodedFiles | None = None):
        self.path, self.decoded = folder / NAME, decoded
        self.known = _read(self.path, tell=True)
        self.new: Entries = {"image": {}, "mask": {}}

    def of_image(self, path: Path) -> Facts:
        return self._look_up("image", path, self._see_image)

    def of_mask(self, path: Path) -> Facts:
        return self._look_up("mask", path, self._see_mask)

    def save(self) -> None:
        """Add what was found out to the file; where that cannot be written, say so on stderr."""
        if not any(self.new.values()):
            return
        now = _read(self.path)  # another process may have added to it
        content = {"made_by": MADE_BY}
        for role, entries in self.new.items():
            merged = now[role] | entries
            content[role] = {path: [size, changed, *facts] for path, (size, changed, facts) in merged.items()}
        content["checksum"] = _checksum(content)
        ours = self.path.is_file() and may_be_replaced(self.path, begins_as(CHECKS))
        try:
            if os.path.lexists(self.path) and not ours:
                problem = "is no file that this program wrote: what is known of files is not kept (--cache_dir)"
            else:
                write_text(self.path, json.dumps(content) + "\n")
                return
        except OSError as error:
            problem = f"cannot be written ({error}): files will be opened again next time"
        print(printable(f"{self.path} {problem}"), file=sys.stderr)

    def _look_up(self, role: str, path: Path, see: Callable[[Path], Facts]) -> Facts:
        try:
            state = state_of(path)
        except OSError as error:
            return Facts(unreadable=error.strerror)
        name = os.path.abspath(path)
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

    def _see_image(self, path: Path) -> Facts:
        picture: Picture = (self.decoded or FROM_DISK).picture(path)
        values, highest = picture.values, picture.values.max()
        two_levels = highest > 0 and (values == 0).any() and ((values == 0) | (values == highest)).all()
        return Facts(
            *values.shape[:2], digest=_digest(values), **asdict(picture.range), looks_like_mask=bool(two_levels),
            orientation=_number(picture.orientation), has_more=picture.has_more,
        )

    def _see_mask(self, path: Path) -> Facts:
        key = key_of("mask", path)
        mask = read_mask(path)
        if self.decoded is not None:
            self.decoded.keep(key, mask.pixels)
        return Facts(
            *mask.pixels.shape, anomalous=float(mask.pixels.mean()), orientation=_number(mask.orientation),
            has_more=mask.has_more, grey_regions=mask.grey_regions,
        )


def _digest(values: np.ndarray) -> str:
    """The same of the same picture, in files of whatever bits: of grey where it is, of 8 bits where these hold it."""
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    values = np.ascontiguousarray(_of_8_bits(values))
    digest = hashlib.blake2b(f"{values.shape} {values.dtype}".encode(), digest_size=16)
    digest.update(values)
    return digest.hexdigest()


def _of_8_bits(values: np.ndarray) -> np.ndarray:
    """Deep values that are those of 8 bits, or of others below 16, times anything usual: as these."""
    if values.dtype == np.float32:
        values = next((whole for unit in UNITS if (whole := _whole(values * unit)) is not None), values)
    if values.dtype in (np.uint8, np.float32) or values.min() < 0 or values.max() > 65535:
        return values
    values = values.astype(np.uint16)
    shift = next((shift for shift in SHIFTS if not (values % shift).any()), 1)
    values = values // np.uint16(shift)
    return values.astype(np.uint8) if values.max() <= 255 else values


def _whole(values: np.ndarray) -> np.ndarray | None:
    """Floats as the whole numbers of 16 bits that they are but for rounding, or None."""
    whole = np.rint(values)
    fits = whole.min() >= 0 and whole.max() <= 65535 and np.abs(values - whole).max() < EXACT
    return whole.astype(np.uint16) if fits else None


def _number(orientation: object) -> int:
    """An orientation of 2..8; 1 of anything else, which turns nothing."""
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 1


def _read(path: Path, tell: bool = False) -> Entries:
    """The entries of a file; none if there is no such file, it is of another version, or damaged, which `tell` says on
    stderr."""
    nothing: Entries = {"image": {}, "mask": {}}
    if not path.is_file():  # a pipe would be waited for
        return nothing
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_by"] != MADE_BY:
            return nothing
        if content.pop("checksum") != _checksum(content):
            raise ValueError("its checksum is another")
        return {role: {name: _entry(row) for name, row in content[role].items()} for role in ("image", "mask")}
    except OSError:
        return nothing
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if tell:
            print(f"{path} is damaged; it is made anew", file=sys.stderr)
        return nothing


def _checksum(content: dict) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _entry(row: list) -> Entry:
    if [type(value) for value in row] != ENTRY_TYPES:
        raise ValueError(f"not an entry: {row}")
    return row[0], row[1], Facts(*row[2:])
