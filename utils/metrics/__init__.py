"""Exact metrics of images and of pixels; see definitions.py."""

from utils.metrics.definitions import (  # noqa: F401
    FPR_LIMIT,
    METRICS,
    UndefinedMetric,
    aupro,
    aupro_per_image,
    evaluate,
    image_roc_curve,
    pixel_curves,
)
