"""No program overwrites a file that it did not write: what our files begin with, and the refusal of all others.
Programs ask before they compute anything, of all files that they are going to write.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.formats import read_head
from datasets.marks import mark_of
from utils.system.errors import UsageError
from utils.system.files import is_device

HEAD = 4096  # bytes of a file that are looked at
RESULTS_JSON = rb'\{\s*"categories": \{'
RESULTS_CSV = rb"category,image_auroc \[0\.\.1\],"
SCORES_CSV = rb"path,category,defect,label,score,"
REPORT = rb'(?s)<!doctype html>.*<meta name="generator" content="AAND, scripts/report.py'
PREDICTION_PAGE = rb'(?s)<!doctype html>.*<meta name="generator" content="AAND, scripts/predict.py'
PREDICTIONS = {
    ".csv": rb"path,score,p_value,anomalous,(verdict,)?regions,error\n",
    ".jsonl": rb'\{"path": "([^"\\]|\\.)*", "score": [^,]*, "p_value": ',
}
COMPARISON = {
    ".md": rb"\| Category \| Metric \|", ".csv": rb"category,metric,run,seeds,mean \[0\.\.1\],",
    ".json": rb'(?s)\{\s*"seeds": \{.*?\},\s*"categories": \{',
}
CHECKS = rb'\{"made_by": "checks '
FACTS = rb'\{("|&quot;)version\1: \d+, \1category\1: '  # of an exported model, somewhere in its file

IsOurs = Callable[[Path], bool]


def refuse_foreign(targets: Iterable[Path], is_ours: IsOurs, advice: str) -> None:
    """UsageError if any of the files to be written is there already and is none of ours."""
    foreign = [path for path in targets if os.path.lexists(path) and not may_be_replaced(path, is_ours)]
    if foreign:
        more = f" (and {len(foreign) - 1} more like it)" if len(foreign) > 1 else ""
        raise UsageError(f"{foreign[0]} is there already, and no file that this program wrote{more}; {advice}")


def may_be_replaced(path: Path, is_ours: IsOurs) -> bool:
    """Tell whether a path is a file of ours, an empty one, or a device, which keeps nothing."""
    if is_device(path):
        return True
    try:
        return path.is_file() and (path.stat().st_size == 0 or is_ours(path))
    except (OSError, ValueError):
        return False


def begins_as(pattern: bytes) -> IsOurs:
    """Tell whether a file begins as those of a program of ours do."""
    return lambda path: re.match(pattern, read_head(path, HEAD)) is not None


def bears(mark: str) -> IsOurs:
    """Tell whether a picture has a mark of `datasets.marks`."""
    return lambda path: mark_of(path) == mark


def holds(path: Path, pixels: np.ndarray) -> bool:
    """Tell whether a PNG file has these very pixels, uint8 (H, W) grey or (H, W, 3): earlier ones have no mark."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            fits = image.mode in ("L", "RGB") and image.size == pixels.shape[1::-1]
            return fits and np.array_equal(np.asarray(image), pixels)
    except Exception:  # Pillow raises many unrelated types
        return False


def has_form(path: Path, mode: str, size: tuple[int, int]) -> bool:
    """Tell whether a PNG file has this mode of Pillow, and this width and height."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.mode == mode and image.size == size
    except Exception:  # Pillow raises many unrelated types
        return False


def is_export(path: Path) -> bool:
    """Tell whether a file is a model of scripts/export.py: its metadata are in it as they are."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(FACTS, content) is not None
