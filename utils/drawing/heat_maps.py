"""Heat maps to look at: an anomaly map over its image, with the ground truth drawn in.

    limits = map_limits(anomaly_maps)  # one colour scale for all images of a category
    save_heat_map(path, image, anomaly_map, mask, limits)

The colour scale never follows the single image: on one scale per category a good image looks calm. Colours are RGB.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from datasets.marks import HEAT_MAP, png_bytes
from utils.system.files import atomic_write

COLORMAP = cv2.COLORMAP_INFERNO  # perceptually uniform: black, purple, red, yellow; readable without colour vision
HEAT_SHARE = 0.55  # of the heat in the blend
LINE_COLOR = (0, 255, 255)  # cyan, a hue that the colour map does not have
HALO_COLOR = (0, 0, 0)
BLOCK = 2**20  # pixels that are blended at once
FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_TEXT, LARGEST_TEXT = 0.3, 0.5  # sizes of letters; 1 is about 22 pixels high


def map_limits(anomaly_maps: np.ndarray) -> tuple[float, float]:
    """Ends of the colour scale for the anomaly maps (N, H, W) of one category: (low, high).

    low is the median of all pixels, so the usual background stays dark. high is the 90th percentile of the maps'
    maxima: one freak image does not dim all others, and defects too small to show in a quantile of pixels count.
    Raises ValueError for another shape, no pixels, and NaN or infinite values.
    """
    anomaly_maps = np.asarray(anomaly_maps)
    if anomaly_maps.ndim != 3 or not anomaly_maps.size:
        raise ValueError(f"anomaly_maps: expected shape (N, H, W) with pixels in it, got {anomaly_maps.shape}")
    _require_finite("anomaly_maps", anomaly_maps)
    maxima = anomaly_maps.max(axis=(1, 2))  # (N,)
    return float(np.median(anomaly_maps)), float(np.quantile(maxima, 0.9, method="nearest"))


def blend_heat(
    image: np.ndarray, anomaly_map: np.ndarray, limits: tuple[float, float], weight: np.ndarray | None = None
) -> np.ndarray:
    """The anomaly map (H, W) in colours over its image in grey, both uint8 (H, W, 3).

    limits (low, high): values at the cold and the hot end of the colours, beyond which all is clipped; if they are
    equal, all is cold. weight: float (H, W), 0 where the map is not to be seen, as of `View.weight`. Raises
    ValueError for other shapes or types, limits that fall, NaN or infinite values.
    """
    anomaly_map = np.asarray(anomaly_map)
    _require_shapes(image, "anomaly_map", anomaly_map)
    _require_finite("anomaly_map", anomaly_map)
    low, high = limits
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"limits must be finite (low, high) with low <= high, got {limits}")
    blended = np.empty_like(image)
    rows = max(1, BLOCK // image.shape[1])
    for start in range(0, len(image), rows):
        part = slice(start, start + rows)
        values = anomaly_map[part].astype(np.float64)
        heat = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
        colors = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), COLORMAP)[..., ::-1]  # BGR -> RGB
        grey = cv2.cvtColor(np.ascontiguousarray(image[part]), cv2.COLOR_RGB2GRAY)[..., None]
        shown = colors if weight is None else colors * weight[part, :, None]
        blended[part] = np.rint(HEAT_SHARE * shown + (1 - HEAT_SHARE) * grey)
    return blended


def color_table() -> np.ndarray:
    """The colours of heat maps from cold to hot, uint8 (256, 3) RGB."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], COLORMAP)[0, :, ::-1]


def draw_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of the image with the outline of the mask: a bright line between dark ones, seen on any background.

    The line runs just outside the anomalous pixels, so that what they show, however small, stays in sight; it grows
    with the image (1 pixel wide at 256). image uint8 (H, W, 3), as is the copy; mask (H, W), anomalous where it is not
    0. Raises ValueError for other shapes or types.
    """
    mask = np.asarray(mask)
    _require_shapes(image, "mask", mask)
    drawn = np.array(image)  # (H, W, 3), contiguous
    width = max(1, round(min(mask.shape) / 256))
    around = cv2.dilate((mask != 0).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=(width + 1) // 2)
    contours, _ = cv2.findContours(around, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, HALO_COLOR, thickness=3 * width)
    cv2.drawContours(drawn, contours, -1, LINE_COLOR, thickness=width)
    return drawn


def caption(width: int, text: str, limits: tuple[float, float]) -> np.ndarray:
    """A strip uint8 (h, width, 3) to stand below a heat map: a text, and the colours from the low to the high limit,
    with their values. Of no height where the text would be too small to be read."""
    low, high = (f"{limit:.4g}" for limit in limits)
    ramp, gap = max(1, width // 8), max(4, width // 100)
    size, _ = cv2.getTextSize(f"{text}   {low}  {high}", FONT, 1.0, 1)
    scale = min((width - ramp - 5 * gap) / size[0], LARGEST_TEXT * max(1.0, width / 1024))
    if scale < SMALLEST_TEXT:
        return np.zeros((0, width, 3), np.uint8)
    height = round(2.2 * scale * size[1])
    strip, line = np.zeros((height, width, 3), np.uint8), max(1, round(1.5 * scale))
    base = round(0.5 * height + 0.5 * scale * size[1])

    def write(words: str, left: int) -> int:
        cv2.putText(strip, words, (left, base), FONT, scale, (255, 255, 255), line, cv2.LINE_AA)
        return left + cv2.getTextSize(words, FONT, scale, line)[0][0]

    write(text, gap)
    right = width - gap - cv2.getTextSize(high, FONT, scale, line)[0][0]
    write(high, right)
    places = np.linspace(0, 255, ramp).astype(int)
    strip[height // 4 : -(height // 4), right - gap - ramp : right - gap] = color_table()[places]
    write(low, right - 2 * gap - ramp - cv2.getTextSize(low, FONT, scale, line)[0][0])
    return strip


def save_heat_map(
    path: str | Path, image: np.ndarray, anomaly_map: np.ndarray, mask: np.ndarray | None, limits: tuple[float, float],
    weight: np.ndarray | None = None, text: str = "",
) -> None:
    """Write one PNG of (H, 2 W): the image | its heat map, with the outline of the mask if there is one, and with a
    text the caption below.

    Arguments are those of `blend_heat` and `draw_outline`, and so are errors; ValueError too for a path that does not
    end in .png, OSError if the file cannot be written. The folder is made if missing.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"heat maps are PNG files, got the path {path}")
    heat_map = blend_heat(image, anomaly_map, limits, weight)
    if mask is not None:
        heat_map = draw_outline(heat_map, mask)
    with atomic_write(path) as temporary:
        below = [caption(2 * image.shape[1], text, limits)] if text else []
        temporary.write_bytes(png_bytes(np.vstack([np.hstack([image, heat_map]), *below]), HEAT_MAP))


def _require_shapes(image: np.ndarray, name: str, values: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    if values.shape != image.shape[:2]:
        raise ValueError(f"{name}: expected the shape of the image, {image.shape[:2]}, got {values.shape}")


def _require_finite(name: str, values: np.ndarray) -> None:
    wrong = np.count_nonzero(~np.isfinite(values))
    if wrong:
        raise ValueError(f"{name}: {wrong} of {values.size} values are NaN or infinite")
