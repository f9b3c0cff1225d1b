"""Number formats: their names, and which one a device multiplies."""

from __future__ import annotations

from pathlib import Path

import torch

from utils.system.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
