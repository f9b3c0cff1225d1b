"""Packages that are not there, said in one line: programs import this file before anything else.

It needs nothing but Python, so that whatever is missing can be named.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType, TracebackType

CORE, DEPLOY, CLUSTER = "requirements.txt", "requirements-deploy.txt", "requirements-cluster.txt"
OWN = ("benchmarks", "datasets", "models", "scripts", "tests", "train", "utils")
NOT_CORE = {
    **dict.fromkeys(("gradio", "onnx", "onnxruntime", "onnxscript", "openvino"), DEPLOY),
    **dict.fromkeys(("fsspec", "ray", "s3fs"), CLUSTER),
}


def name_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say which package is missing and how to get it, with exit status 2; show any other error as Python does."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not package or package in OWN:
        sys.__excepthook__(kind, error, trace)
        return
    requirements = NOT_CORE.get(package, CORE)
    print(f"error: the package {package} is not installed: pip install -r {requirements}", file=sys.stderr)
    sys.exit(2)


def require(package: str, purpose: str, requirements: str = DEPLOY) -> ModuleType:
    """Import a package that the file `requirements` has. Raises MissingPackage if it is not there."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports its use to its makers
    try:
        return import_module(package)
    except ImportError as error:
        from utils.system.errors import MissingPackage

        raise MissingPackage(
            f"{purpose} needs the package {package}: pip install -r {requirements} ({error})"
        ) from error


sys.excepthook = name_missing
