"""Names that come from files and folders, as text that can be printed.

A file's name may hold line breaks, escape codes, marks that turn the direction of writing, or bytes that are no text:
printed as they are they forge lines of output or move a terminal's cursor. Every name that reaches a screen, a log, a
table, CSV, JSON or HTML goes through `printable`.
"""

from __future__ import annotations

from os import PathLike


def printable(name: str | PathLike) -> str:
    r"""A name with each character that cannot be seen (other than the space) as an escape, e.g. a line break as \n."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(name))
