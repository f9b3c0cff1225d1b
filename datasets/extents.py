"""Extents of training images: where their objects are, and which grey levels they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # what only reads runs needs no torch
    from torch import Tensor

Edges = tuple[int, int, int, int]  # top, bottom, left and right, in pixels
MARGIN = 1 / 32  # of the frame, around the objects
TAIL = 0.005  # share of the values that may end up black, and white
CHUNK = 64  # images looked at at once


def object_box(images: Tensor | Sequence[Tensor], inside: np.ndarray) -> Edges:
    """Top, bottom, left and right, in pixels, of all foregrounds together and a margin; of `inside` where there are
    none. images: uint8 (N, H, W, 4), the last channel the foreground of 0 and 1; inside: bool (H, W), where pixels
    count."""
    union = np.zeros(inside.shape, bool)
    for start in range(0, len(images), CHUNK):
        union |= images[start : start + CHUNK][..., 3].numpy().any(axis=0)
    union &= inside
    if not union.any():
        return bounds(inside)
    (top, bottom, left, right), (height, width) = bounds(union), inside.shape
    down, across = round(MARGIN * height), round(MARGIN * width)
    return max(0, top - down), min(height, bottom + down), max(0, left - across), min(width, right + across)


def bounds(mask: np.ndarray) -> Edges:
    """Top, bottom, left and right of what is not 0."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def levels_in_use(
    images: Tensor | Sequence[Tensor], box: Edges, inside: np.ndarray
) -> tuple[int, int]:
    """The grey levels of images uint8 (N, H, W, 4) in a box, where they are `inside`, of which TAIL is below and TAIL
    above; 0 and 255 where there is only one."""
    top, bottom, left, right = box
    counts, counted = np.zeros(256, np.int64), inside[top:bottom, left:right]
    for start in range(0, len(images), CHUNK):
        seen = images[start : start + CHUNK][:, top:bottom, left:right, :3].numpy()
        values = seen.reshape(-1) if counted.all() else seen[:, counted].reshape(-1)
        counts += np.bincount(values, minlength=256)
    below = np.cumsum(counts) / counts.sum()
    black, white = int(np.searchsorted(below, TAIL)), int(np.searchsorted(below, 1 - TAIL))
    return (black, white) if black < white else (0, 255)
