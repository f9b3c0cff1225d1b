"""Packages that are not there, said in one line: programs import this file before anything else, libraries never.

It needs nothing but Python, so that whatever is missing can be named.
"""

from __future__ import annotations

import sys
from types import TracebackType

from utils.system.packages import CORE, NOT_CORE

OWN = ("aand", "benchmarks", "datasets", "models", "scripts", "tests", "train", "utils")


def name_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say which package is missing and how to get it, with exit status 2; show any other error as Python does."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not package or package in OWN:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: the package {package} is not installed: {NOT_CORE.get(package, CORE)}", file=sys.stderr)
    sys.exit(2)


sys.excepthook = name_missing
