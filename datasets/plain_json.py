"""JSON that nobody vouches for: whatever a file holds, it is read or a ValueError says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

MAX_BYTES = 32 * 2**20  # of a file: far more than a list of all of VisA's images
MAX_DEPTH = 20  # of lists and objects in each other
MAX_INT = 2**63

T = TypeVar("T")


def read_json(path: Path) -> Any:
    """The content of a JSON file: finite numbers, text that can be written again, not nested without end. Raises
    OSError for a file that is not there or no file, ValueError for any other content."""
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
    """The content of a text, as `read_json` gives it. Raises ValueError."""
    try:
        content = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [content]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and abs(value) >= MAX_INT for value in level):
            raise ValueError("a number is too large")
        level = [child for value in level for child in _children(value)]
        if not level:
            return content
    raise ValueError("nested too deeply")


def typed(content: Any, kind: type[T], name: str = "") -> T:
    """Plain content as a value of a kind, as msgspec converts it. Raises ValueError naming the field, and `name`."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:  # e.g. "Expected `int` - at `$.image_size`"
        text, _, place = str(error).replace("`", "").partition(" - at $")
        name = f"{name}{place}".lstrip(".")
        raise ValueError((f"{name}: " if name else "") + text[:1].lower() + text[1:200]) from None


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
