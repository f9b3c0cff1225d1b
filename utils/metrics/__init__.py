"""Exact metrics of images and of pixels; see definitions.py."""

from utils.metrics.definitions import (  # noqa: F401
    FPR_LIMIT,
    METRICS,
    UndefinedMetric,
    aupro,
    aupro_per_image,
    evaluate,
    image_ap,
    image_auroc,
    image_f1_max,
    image_roc_curve,
    pixel_ap,
    pixel_auroc,
    pixel_curves,
    pixel_f1_max,
)
