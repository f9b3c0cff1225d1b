"""Checks of what the metrics are given: clear errors that name the argument, the value and the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Images = np.ndarray | Sequence[np.ndarray]  # (N, H, W), or N arrays (H_i, W_i)


def check_images(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1:
        raise ValueError(f"labels: expected shape (N,), got {labels.shape}")
    if scores.shape != labels.shape:
        raise ValueError(f"scores: expected shape {labels.shape} (one score per label), got {scores.shape}")
    _require_finite("scores", scores)
    return _to_bool("labels", labels), scores


def check_maps(anomaly_maps: Images) -> Images:
    anomaly_maps = _to_arrays("anomaly_maps", anomaly_maps)
    _require_finite("anomaly_maps", anomaly_maps)
    return anomaly_maps


def check_masks(masks: Images, anomaly_maps: Images) -> Images:
    """Masks as bool, of the shapes of the anomaly maps."""
    masks = _to_arrays("masks", masks)
    if len(masks) != len(anomaly_maps):
        raise ValueError(f"masks: expected {len(anomaly_maps)}, one mask per anomaly map, got {len(masks)}")
    for index, (shape, of_map) in enumerate(zip(map(np.shape, masks), map(np.shape, anomaly_maps), strict=True)):
        if shape != of_map:
            raise ValueError(f"masks: expected shape {of_map} (that of the anomaly map), got {shape} in image {index}")
    if isinstance(masks, np.ndarray):
        return _to_bool("masks", masks)
    return [_to_bool("masks", mask, first=index) for index, mask in enumerate(masks)]


def check_pixels(masks: Images, anomaly_maps: Images) -> tuple[Images, Images]:
    anomaly_maps = check_maps(anomaly_maps)
    return check_masks(masks, anomaly_maps), anomaly_maps


def check_limit(fpr_limit: float) -> None:
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must be above 0 and at most 1, got {fpr_limit}")


def _to_arrays(name: str, images: Images) -> Images:
    """An array (N, H, W) as it is; any other sequence as a list of arrays (H_i, W_i)."""
    if isinstance(images, np.ndarray):
        if images.ndim != 3:
            raise ValueError(f"{name}: expected shape (N, H, W), got {images.shape}")
        return images
    images = [np.asarray(image) for image in images]
    for index, image in enumerate(images):
        if image.ndim != 2:
            raise ValueError(f"{name}: expected shape (H, W), got {image.shape} in image {index}")
    return images


def _require_finite(name: str, images: Images) -> None:
    """images: N numbers or arrays; they must be real, none of them NaN or infinite."""
    num_nan = num_infinite = 0
    wrong = []
    for index, values in enumerate(map(np.asarray, images)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected real numbers, got dtype {values.dtype}")
        finite = np.count_nonzero(np.isfinite(values))
        if finite < values.size:
            nan = np.count_nonzero(np.isnan(values))
            num_nan, num_infinite = num_nan + nan, num_infinite + values.size - finite - nan
            wrong.append(index)
    if wrong:
        raise ValueError(f"{name}: {num_nan} NaN and {num_infinite} infinite values, in {name_images(wrong)}")


def _to_bool(name: str, values: np.ndarray, first: int | None = None) -> np.ndarray:
    """values of 0 and 1 as bool: (N, ...), or one image (H, W), the one numbered `first`."""
    if values.dtype == bool:
        return values
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        images = np.unique(np.nonzero(wrong)[0]) if first is None else [first]
        raise ValueError(f"{name}: expected 0 and 1 only, got {values[wrong][0]} in {name_images(images)}")
    return values.astype(bool)


def name_images(indices: Sequence[int]) -> str:
    named = ", ".join(map(str, indices[:10]))
    more = f" and {len(indices) - 10} more" if len(indices) > 10 else ""
    return f"image{'s' if len(indices) > 1 else ''} {named}{more} (counted from 0)"
