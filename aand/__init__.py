"""Find defects in photographs with a trained category: `aand predict`, `aand app`, or as a library.

    from aand import load_detector

    found = load_detector("part.onnx").predict("photo.jpg")         # or a run folder, with torch

The names are those of utils/detection, which is imported when the first of them is asked for.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "Detection", "Detector", "Prediction", "Predictor", "Region", "Thresholds", "load_detector", "load_predictor",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from utils import detection

    return getattr(detection, name)
