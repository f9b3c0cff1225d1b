"""Overlapping windows, in a grid of rows and columns over a box, and the matrices that make one map of theirs.

Both axes are independent: with the windows' maps laid side by side, one matrix for rows and one for columns place,
blend and resize all of them: `rows @ maps @ columns.T`. The model file of scripts/export.py holds the same matrices.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

OVERLAP = 1 / 8  # of a window's side, with the next one
MOST_WINDOWS = 16  # in a row, and in a column


def spans(count: int) -> list[tuple[float, float]]:
    """Start and end of so many windows along a side, as shares of it."""
    length = 1 / _lengths(count)
    starts = [place * (1 - OVERLAP) * length for place in range(count)]
    return [(start, min(1.0, start + length)) for start in starts[:-1]] + [(1 - length, 1.0)]


def joined_side(count: int, side: int) -> int:
    """Pixels of a side over which so many windows of `side` pixels lie, at the windows' resolution."""
    return round(side * _lengths(count))


@lru_cache(maxsize=16)
def joining_matrix(count: int, side: int, whole: int, start: int, end: int) -> np.ndarray:
    """Weights float32 (whole, count * side): what each place of a map has of the windows' ones, laid side by side.

    The windows lie over the places from `start` to `end`; those beside have nothing. Where two overlap, one fades out
    as the other fades in: the weights of each place sum to 1. Read-only:
    it is made once for all images.
    """
    matrix = np.zeros((whole, count * side), np.float32)
    if count == 1:
        eye = np.eye(side, dtype=np.float32)
        matrix[start:end] = cv2.resize(eye, (side, end - start), interpolation=cv2.INTER_AREA)
        matrix.setflags(write=False)
        return matrix
    centre = (np.arange(end - start) + 0.5) / (end - start)  # of the places, in shares of the box
    fade = OVERLAP / _lengths(count)
    weights = np.stack([
        np.minimum(
            np.clip((centre - first) / fade, 0, 1) if number > 0 else 1,
            np.clip((last - centre) / fade, 0, 1) if number < count - 1 else 1,
        ) * np.ones(end - start)
        for number, (first, last) in enumerate(spans(count))
    ])
    weights /= weights.sum(axis=0)
    for number, (first, last) in enumerate(spans(count)):
        place = np.clip((centre - first) / (last - first) * side - 0.5, 0, side - 1)  # in the window's pixels
        below = np.minimum(place.astype(int), side - 2)
        row = np.arange(start, end)
        matrix[row, number * side + below] += weights[number] * (1 - (place - below))
        matrix[row, number * side + below + 1] += weights[number] * (place - below)
    matrix.setflags(write=False)
    return matrix


def side_by_side(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Maps (N * rows * columns, h, w) of windows, row by row, laid side by side: (N, rows * h, columns * w)."""
    height, width = maps.shape[-2:]
    grid = maps.reshape(-1, rows, columns, height, width)
    return grid.transpose(0, 1, 3, 2, 4).reshape(-1, rows * height, columns * width)


def _lengths(count: int) -> float:
    """The side that so many windows lie over, in lengths of one."""
    return count - (count - 1) * OVERLAP
