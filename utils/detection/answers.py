"""What a model says of images, looked at where it is made: a map and a score for each, all of them finite numbers.

    check_shapes(maps, scores, images=3)                 # (3, S, S), (3,)
    require_finite(maps, scores, names)                  # PredictionError naming the images that have no result

NaN is above no threshold: whatever lets it pass calls a defect good.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.names import printable
from datasets.problems import count
from utils.system.errors import PredictionError

MOST_NAMED = 5  # images that an error names


def check_shapes(maps: np.ndarray, scores: np.ndarray, images: int) -> None:
    """Raises PredictionError unless there are real maps (images, S, S), none empty, and scores (images,)."""
    maps, scores = np.asarray(maps), np.asarray(scores)
    square = maps.ndim == 3 and maps.shape[1] == maps.shape[2] > 0
    if not square or len(maps) != images or scores.shape != (images,) or {maps.dtype.kind, scores.dtype.kind} != {"f"}:
        raise PredictionError(
            f"the model answers with maps {maps.dtype} {maps.shape} and scores {scores.dtype} {scores.shape}, not with "
            f"a square map and a score for each of {count(images, 'image')}"
        )


def require_finite(maps: np.ndarray, scores: np.ndarray, names: Sequence[str | Path] = ()) -> None:
    """Raises PredictionError for maps (N, S, S) and scores (N,) among which are NaN or infinite values.

    names: of the images, in their order; without, they are numbered.
    """
    wrong = [index for index, of in enumerate(zip(maps, scores, strict=True)) if not is_finite(*of)]
    if wrong:
        named = [printable(names[index]) if index < len(names) else f"number {index + 1}" for index in wrong]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        raise PredictionError(
            f"the model gives NaN or infinite values for {count(len(wrong), 'image')}: "
            f"{', '.join(named[:MOST_NAMED])}{more}"
        )


def is_finite(anomaly_map: np.ndarray, score: float) -> bool:
    """Whether the map of an image and its score are a result."""
    return bool(np.isfinite(score) and np.isfinite(anomaly_map).all())
