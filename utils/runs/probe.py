"""The image that models are tried on when they are loaded."""

from __future__ import annotations

import numpy as np


def probe_image(size: int) -> np.ndarray:
    """A plain image uint8 (size, size, 3) of every grey level in each colour: numbers that a model cannot put up with
    show on it."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp, ramp[:, None], ramp[::-1]), axis=2)
