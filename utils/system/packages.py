"""Packages that the core requirements lack: imported where they are used, or an error that says how to get them."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

from utils.system.errors import MissingPackage
from utils.system.missing import DEPLOY


def require(package: str, purpose: str, requirements: str = DEPLOY) -> ModuleType:
    """A package that the file `requirements` has. Raises MissingPackage if it is not there."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports its use to its makers
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackage(
            f"{purpose} needs the package {package}: pip install -r {requirements} ({error})"
        ) from error
