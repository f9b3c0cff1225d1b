"""Versions, hardware and the code itself: figures depend on these besides settings and seed."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "numpy")
ROOT = Path(__file__).parents[2]


def environment() -> dict[str, Any]:
    """Versions and hardware: {"python", "torch", ..., "system", "machine", "cpu", "cores"}, no names of hosts, users or
    folders. A package that is not installed and a CPU without a name are left out."""
    facts: dict[str, Any] = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[package] = metadata.version(package)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts |= {"system": platform.system(), "machine": platform.machine(), "cores": usable}
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is mostly empty
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cpu = next(names, platform.processor())
    return {**facts, "cpu": cpu} if cpu else facts


def code_version() -> dict[str, Any]:
    """The commit of this code, and whether files under version control were changed since: {"commit", "changed"}; empty
    where git or the history is missing, as in a downloaded archive."""
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {} if commit is None or status is None else {"commit": commit, "changed": bool(status)}


def _git(*arguments: str) -> str | None:
    """The output of git, if this code is the top of a repository of its own; otherwise None."""
    if not (ROOT / ".git").exists():  # or a repository around this folder would answer
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
