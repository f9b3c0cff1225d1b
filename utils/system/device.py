"""Devices: which one is used, which number formats it multiplies, and how much memory is free."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch
from torch import Tensor

from utils.system.errors import UsageError
from utils.system.processes import processes_here

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_SHARE = 0.5  # of the memory or disk space free that images, or features, may take



def pick_device(name: str) -> torch.device:
    """The device of a --device flag; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises UsageError for a device that torch does not know or that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a meta tensor has none
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def resolve_precision(precision: str, device: torch.device) -> str:
    """The number format that a --precision flag means on a device; "auto" is bf16 where the hardware has it.

    Raises UsageError for fp16 without CUDA: elsewhere it is slower than float32, or not there at all.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(f"--precision fp16 needs a CUDA device, not {device.type}; use auto, bf16 or fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bfloat16 in hardware; False where the system does not tell."""
    if not cpuinfo.is_file():
        return False
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, ARM


def available_memory(device: torch.device) -> int:
    """Bytes that can be taken now: of a CUDA device's memory, or this process's part of the machine's, control groups
    considered."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")  # version 2: the limit of a container
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no limit is written as "max"
        return free // processes_here()
    return min(free, max(0, limit - used)) // processes_here()


def near(stack: Tensor, device: torch.device) -> Tensor:
    """A stack of images on a CUDA device, if a tenth of its free memory holds it: batches then need no copy. Otherwise,
    and on other devices, the stack as it is."""
    fits = device.type == "cuda" and isinstance(stack, Tensor) and stack.nbytes <= 0.1 * available_memory(device)
    return stack.to(device) if fits else stack
