"""Packages that not all of the programs need, and how to get them. It needs nothing but Python."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

CORE = "pip install -r requirements.txt"
DEPLOY = "pip install -r requirements-deploy.txt"
CLUSTER = "pip install -r requirements-cluster.txt"
NOT_CORE = {
    **dict.fromkeys(("gradio", "onnx", "onnxruntime", "onnxscript", "openvino"), DEPLOY),
    **dict.fromkeys(("fsspec", "ray", "s3fs"), CLUSTER),
}


def require(package: str, purpose: str, how: str = DEPLOY) -> ModuleType:
    """Import a package; how: the command that installs it. Raises MissingPackage if it is not there."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports its use to its makers
    try:
        return import_module(package)
    except ImportError as error:
        from utils.system.errors import MissingPackage

        raise MissingPackage(f"{purpose} needs the package {package}: {how} ({error})") from error
