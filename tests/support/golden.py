"""The golden numbers of the method's public implementation (tests/golden/) and the fill rule that made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
OFFICIAL_KEYS: dict[str, list] = json.loads((FOLDER / "official_checkpoint_keys.json").read_text())
EXPECTED: dict = json.loads((FOLDER / "expected.json").read_text())


def array(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def official_part(part: str) -> dict[str, Tensor]:
    """A part of an official checkpoint, filled by rule: tensor number i comes from RandomState(i)."""
    return {name: _fill(i, name, tuple(shape)) for i, (name, shape, _) in enumerate(OFFICIAL_KEYS[part])}


def _fill(number: int, name: str, shape: tuple[int, ...]) -> Tensor:
    rs = np.random.RandomState(number)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        values = 0.5 + rs.random_sample(shape)
    elif len(shape) == 1 and name.endswith("weight"):
        values = 0.25 + 0.25 * rs.random_sample(shape)
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * rs.standard_normal(shape)
    elif len(shape) == 4:
        values = rs.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    else:
        values = rs.standard_normal(shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
