"""Names that come from files and folders, as text that can be printed.

A file's name may hold line breaks, escape codes, or bytes that are no text, which forge lines of output or move a
terminal's cursor. Every name that is shown or written goes through `printable`; PrintableErrors do it themselves.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from os import PathLike
from typing import Any

TAKEN = ("teacher.pt",)  # beside the categories' folders in a run
TAKEN_ROWS = ("Mean",)  # beside their rows in tables
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets compute what such a cell holds


class PrintableError(Exception):
    """The errors of this project that are shown as they are: each argument is one line of the message."""

    def __str__(self) -> str:
        return "\n".join(map(printable, self.args))


def printable(name: str | PathLike) -> str:
    r"""A name with each character that cannot be seen (other than the space) as an escape, e.g. a line break as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))


def misfit_of(name: str) -> str:
    """Why a category, or what else a folder is named after, cannot be called so; "" if it can."""
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        return "it is no name of a folder"
    if not name.isprintable():
        return "it holds characters that cannot be printed"
    if name.casefold() in TAKEN or name in TAKEN_ROWS:
        return "a run has something else of that name"
    return ""


def is_utf8(name: str) -> bool:
    """Tell whether a name can be written to files of text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def csv_line(values: Iterable[object]) -> str:
    """Values as a line of a CSV file, quoted where it must be; text is printable, and no cell of text is a formula."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(_csv_cell(v) if isinstance(v, str) else v for v in values)
    return line.getvalue()


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON that can be printed, names being what they are: what cannot be seen is in JSON's own escapes."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _csv_cell(text: str) -> str:
    return ("'" if text.startswith(FORMULA_STARTS) else "") + printable(text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")  # JSON has escapes of 16 bits alone
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
