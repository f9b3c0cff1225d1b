"""Devices: which one is used, and how much memory is free. Torch is imported where it is needed: programs that run
exported models have none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from utils.system.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LARGEST_SHARE = 0.5  # of the memory or disk space free that images, or features, may take


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises UsageError for a device that torch does not know or that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a meta tensor has none
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"`device` {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def available_memory(device: torch.device | None = None) -> int:
    """Bytes that can be taken now: of a CUDA device's memory, or this process's part of the machine's, control groups
    considered."""
    import psutil

    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    free, processes = psutil.virtual_memory().available, processes_here()
    group = Path("/sys/fs/cgroup")  # version 2: the limit of a container
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no limit is written as "max"
        return free // processes
    return min(free, max(0, limit - used)) // processes


def near(stack: Tensor, device: torch.device) -> Tensor:
    """A stack of images on a CUDA device, if a tenth of its free memory holds it: batches then need no copy. Otherwise,
    and on other devices, the stack as it is."""
    import torch

    fits = device.type == "cuda" and isinstance(stack, torch.Tensor) and stack.nbytes <= 0.1 * available_memory(device)
    return stack.to(device) if fits else stack


def processes_here() -> int:
    """The number of processes that share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
