"""Names that come from files and folders, as text that can be printed.

A file's name may hold line breaks, escape codes, marks that turn the direction of writing, or bytes that are no text:
printed as they are they forge lines of output or move a terminal's cursor. Every name that reaches a screen, a log, a
table, CSV, JSON or HTML goes through `printable`.
"""

from __future__ import annotations

from os import PathLike

TAKEN = ("teacher.pt",)  # beside the categories' folders in a run
TAKEN_ROWS = ("Mean",)  # beside their rows in tables


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
