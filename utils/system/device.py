"""Devices: which one is used, and the number format that it multiplies."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from utils.system.errors import UsageError
from utils.system.memory import available_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name, "auto" being CUDA, then Apple's MPS, then the CPU; UsageError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a meta tensor has none
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UsageError(f"`device` {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def near(stack: Tensor, device: torch.device) -> Tensor:
    """A stack of images on a CUDA device, if a tenth of its free memory holds it; otherwise the stack as it is."""
    fits = device.type == "cuda" and isinstance(stack, Tensor) and stack.nbytes <= 0.1 * available_memory(device)
    return stack.to(device) if fits else stack


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def resolve_precision(precision: str, device: torch.device) -> str:
    """The number format that a precision means on a device; "auto" is bf16 where the hardware has it.

    Raises UsageError for fp16 without CUDA: elsewhere it is slower than float32, or not there at all.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(f"`precision` fp16 needs a CUDA device, not {device.type}; use auto, bf16 or fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this processor multiplies bfloat16 in hardware; False where the system does not tell."""
    if not cpuinfo.is_file():
        return False
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))  # x86, x86, ARM
