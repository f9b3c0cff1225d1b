"""JSON that nobody vouches for: whatever a file holds, it is read or a ValueError says what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20  # of a file: far more than a list of all of VisA's images
MAX_DEPTH = 20  # of lists and objects in each other
MAX_INT = 2**63


def read_json(path: Path) -> Any:
    """The content of a JSON file: finite numbers, text that can be written again, not nested without end.

    Raises OSError for a file that is not there or no file, ValueError for any other content.
    """
    return parse_json(read_text(path))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises as `read_json`."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise OSError(f"{path} is not a file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES:,} bytes")
    return content.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Parse a text as `read_json` does a file."""
    try:
        content = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_bounded)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(content)
    if "\\ud" in text.lower():
        json.dumps(content, ensure_ascii=False).encode()  # half a pair of surrogates: UnicodeEncodeError, a ValueError
    return content


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _bounded(text: str) -> int:
    if len(text) > len(str(-MAX_INT)) or abs(int(text)) >= MAX_INT:
        raise ValueError(f"{text[:20]} is too large a number")
    return int(text)
