"""Files of tensors that nobody vouches for: no code in them is run, nothing allocated that they only claim to hold."""

from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from models import WeightsError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 5  # before the numbers: magic number, version, machine, content, names of the storages
# What a pickle of tensors and plain values names; nothing of it can allocate more than the file holds:
PLAIN = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|collections (OrderedDict|Counter)"
)
OTHER_NAMES = ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")  # opcodes that name things as torch.save never does
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHOWN = 3  # of many reasons


def read_file(path: str | Path, legacy: bool = False) -> dict:
    """A dict saved by torch, its tensors on the CPU and in the file until they are copied.

    The file must be as torch.save writes it: a zip file of entries that are not compressed, with nothing but tensors
    and plain values, whose checksums are right. legacy: for files of others; torch's format from before 1.6 will do
    too, its tensors in memory, and checksums, which torch need not write, are not looked at.

    Raises WeightsError naming the file if it cannot be read or holds anything else; no code in it is run.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            if not zipped and not legacy:
                raise ValueError("it is empty" if file.tell() == 0 else "it is no zip file, as torch.save writes them")
            if zipped:
                _check_zip(file, with_sums=not legacy)
            else:
                file.seek(0)
                for _ in range(LEGACY_PICKLES):
                    _check_pickle(file)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:  # its message advises to run the code
        raise WeightsError(f"cannot read {path}: it is damaged, or holds more than tensors and plain values") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except Exception as error:  # damaged, it means anything: unrelated types
        raise WeightsError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"cannot use {path}: it holds a {type(content).__name__}, not a dict")
    return content


def describe_misfit(own: Mapping[str, Tensor], state: object) -> str:
    """Why `state` cannot be copied into tensors of these names, shapes and kinds of numbers: the first few reasons, ""
    if it can be. Numbers that are not finite are a reason too. Tensors (0, ...) take any rows, all the same number."""
    if not isinstance(state, Mapping):
        return f"it is a {type(state).__name__}, not a state dict"
    reasons = [f"{name} is missing" for name in own if name not in state]
    reasons += [f"{str(name)[:80]!r} is unexpected" for name in state if name not in own]
    for name, tensor in own.items():
        if name in state and (difference := _difference(tensor, state[name])):
            reasons.append(f"{name} {difference}")
    if not reasons and len(rows := {len(state[name]) for name, tensor in own.items() if _can_grow(tensor)}) > 1:
        reasons.append(f"its tensors have different numbers of rows: {', '.join(map(str, sorted(rows)))}")
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return "; ".join(reasons[:SHOWN]) + more


def fingerprint(parts: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The tensors of state dicts as one word: SHA-256 over their names, kinds of numbers, shapes and numbers."""
    sha256 = hashlib.sha256()
    for part, state in sorted(parts.items()):
        for name, tensor in sorted(state.items()):
            sha256.update(f"{part} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def is_state_dict(part: object) -> bool:
    return isinstance(part, Mapping) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in part.items())


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_zip(file: IO[bytes], with_sums: bool) -> None:
    """ValueError or zipfile.BadZipFile for a zip file that torch.save does not write, or that changed since."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if not pickles:
            raise ValueError("it is a zip file without tensors")
        names = {entry.filename.lower() for entry in entries}  # torch looks them up so
        if len(names) < len(entries) or min(entry.header_offset for entry in entries) > 0:
            raise ValueError("it holds two zip files, or a name twice")
        if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
            raise ValueError("its entries are compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries claim to be larger than the file")
        for entry in pickles:
            with archive.open(entry) as content:
                _check_pickle(content)
        if with_sums and (damaged := archive.testzip()):
            raise ValueError(f"it is damaged: {damaged} in it has another checksum than when it was written")


def _check_pickle(file: IO[bytes]) -> None:
    """Read a pickle's instructions without following them; ValueError if it names more than tensors consist of."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in OTHER_NAMES or (opcode.name == "GLOBAL" and not PLAIN.fullmatch(argument)):
            named = str(argument or opcode.name).replace(" ", ".")[:80]
            raise ValueError(f"it names {named}, more than tensors and plain values; nothing of it was run")


def _can_grow(own: Tensor) -> bool:
    return own.ndim > 0 and len(own) == 0


def _difference(own: Tensor, found: object) -> str:
    if not isinstance(found, Tensor):
        return f"is a {type(found).__name__}, not a tensor"
    if found.layout is not torch.strided or found.device.type != "cpu":
        return "is no plain tensor"
    if _can_grow(own) and found.numel() == 0:
        return "is empty"
    fits = found.ndim == own.ndim and found.shape[1:] == own.shape[1:] if _can_grow(own) else found.shape == own.shape
    if not fits:
        return f"has shape {tuple(found.shape)}, the model needs {tuple(own.shape)}"
    if found.dtype != own.dtype and not (found.dtype in FLOATS and own.dtype in FLOATS):
        return f"holds {found.dtype}, the model needs {own.dtype}".replace("torch.", "")
    if own.is_floating_point() and not torch.isfinite(found.to(own.dtype)).all():
        return "holds NaN or infinite values"
    return ""
