"""Refusals to write over files of others."""

from __future__ import annotations

from pathlib import Path

from tests.support.commands import Result


def refused(result: Result, path: str | Path) -> None:
    """AssertionError unless a program refused in one line to write over a file."""
    assert result.status == 2 and len(result.errors) == 1, result.err
    assert f"{path} is there already, and no file that this program wrote" in result.errors[0]
