"""Foreground masks of training images: where the object is, so that synthetic anomalies are painted on it.

The rules work on the grey image at full size, smoothed with a Gaussian.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from datasets.base import DataError, load_mask
from datasets.folders import list_folders
from datasets.names import printable
from datasets.own import OWN

SIGMA = 8  # pixels

# What makes an object clear enough for the automatic rule
MIN_BORDER_PURITY = 0.95  # share of the image's border that lies on one side of the threshold: the background
MIN_SEPARABILITY = 0.65  # Otsu's between-class share of the variance; a single normal population reaches 0.64
MIN_CONTRAST = 10  # grey levels between the means of the two sides
AREA_RANGE = (0.05, 0.95)  # share of the image


@dataclass(frozen=True)
class Rule:
    """Rule by which a category's foreground is found.

    kind "above": grey > value; "at_most": grey <= value; "disc": centred, radius value * height; "box": centred,
    half-sides value * width and value * height; "automatic": chosen for each image, `value` is not used.
    """

    kind: Literal["above", "at_most", "disc", "box", "automatic"]
    value: float = 0.0


# What folders of masks are called, the public ones too; in any letter case, with any marks between
NAMES = {
    "mvtec": ("mvtec", "mvtecad", "mvtecanomalydetection"),
    "mvtec3d": ("mvtec3d", "mvtec3dad", "mvtec3drgb", "mvtec3danomalydetection"),
    "visa": ("visa", "visa20220922"),
}

AUTOMATIC = Rule("automatic")

PUBLISHED = {
    "mvtec": {
        Rule("above", 0): "carpet grid leather tile wood transistor",
        Rule("at_most", 150): "capsule screw zipper",
        Rule("above", 50): "hazelnut metal_nut pill toothbrush",
        Rule("disc", 0.45): "cable bottle",
    },
    "visa": {
        Rule("above", 150): "candle cashew chewinggum fryum macaroni1 macaroni2 pcb1",
        Rule("above", 100): "pcb2 pcb3 pipe_fryum",
        Rule("above", 50): "pcb4",
        Rule("at_most", 100): "capsules",
    },
    "mvtec3d": {
        Rule("above", 50): "bagel cable_gland carrot cookie dowel peach potato rope",
        Rule("box", 0.35): "foam tire",
    },
}
RULES = {
    dataset: {category: rule for rule, names in rules.items() for category in names.split()}
    for dataset, rules in PUBLISHED.items()
}


def rule_for(dataset: str, category: str) -> Rule:
    """The published rule of a category; the automatic one for any other category or data set."""
    return RULES.get(dataset, {}).get(category, AUTOMATIC)


def foreground_mask(image: np.ndarray, rule: Rule) -> np.ndarray:
    """The foreground uint8 (H, W) of 0 and 1 of an image uint8 (H, W, 3). Raises ValueError for an unknown rule."""
    height, width = image.shape[:2]
    rows = np.arange(height)[:, None] - (height - 1) / 2  # of the pixels' centres from the image's, (H, 1) and (1, W)
    columns = np.arange(width)[None] - (width - 1) / 2
    if rule.kind == "disc":
        return (rows**2 + columns**2 <= (rule.value * height) ** 2).astype(np.uint8)
    if rule.kind == "box":
        return ((np.abs(rows) <= rule.value * height) & (np.abs(columns) <= rule.value * width)).astype(np.uint8)
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), SIGMA)  # (H, W)
    if rule.kind == "above":
        return (grey > rule.value).astype(np.uint8)
    if rule.kind == "at_most":
        return (grey <= rule.value).astype(np.uint8)
    if rule.kind == "automatic":
        return _clear_object(grey)
    raise ValueError(f"unknown foreground rule {rule.kind!r}; use above, at_most, disc, box or automatic")


def fg_mask_path(fg_root: Path, dataset: str, category: str, image_path: Path) -> Path:
    """Path at which the mask of a training image is stored."""
    return Path(fg_root) / dataset / category / "train" / _mask_name(dataset, image_path)


def mask_folder(fg_root: Path, dataset: str, category: str) -> Path:
    """Folder of a category's stored masks: that of `fg_mask_path` or, without it, the same below a folder of another
    name of the data set, e.g. VisA. Raises DataError where there are several of these."""
    own = fg_mask_path(fg_root, dataset, category, Path()).parent
    if own.is_dir():
        return own
    names = NAMES.get(dataset, (dataset,))
    named = [path for path in list_folders(fg_root) if re.sub(r"[\W_]", "", path.name).lower() in names]
    folders = [folder for path in named if (folder := path / category / "train").is_dir()]
    if len(folders) > 1:
        listed = ", ".join(map(printable, folders))
        raise DataError(f"foreground masks of {printable(category)} are in several folders: {listed}; keep one")
    return folders[0] if folders else own


def stored_foregrounds(paths: Sequence[Path], dataset: str, category: str, fg_root: Path | None) -> list[Path]:
    """The foreground masks of training images that are stored in `fg_root`."""
    if fg_root is None:
        return []
    folder = mask_folder(fg_root, dataset, category)
    places = [folder / _mask_name(dataset, path) for path in paths]
    return [place for place in places if os.path.lexists(place)]  # a pipe is there, and an error


def foreground_of(
    image_path: Path, dataset: str, category: str, fg_root: Path | None, image: np.ndarray,
    read_mask: Callable[[Path], np.ndarray] = load_mask,
) -> np.ndarray:
    """The stored foreground mask of a training image uint8 (H, W, 3), or one made of it; uint8 (H, W) of 0 and 1.

    Raises DataError for a stored mask that cannot be read or whose size is not the image's.
    """
    stored = stored_foregrounds([image_path], dataset, category, fg_root)
    if not stored:
        return foreground_mask(image, rule_for(dataset, category))
    mask = read_mask(stored[0])
    if mask.shape != image.shape[:2]:
        raise DataError(
            f"foreground mask {stored[0]} has {mask.shape[1]}x{mask.shape[0]} pixels, its image {image_path} "
            f"{image.shape[1]}x{image.shape[0]}; make the masks again with scripts/fore_extractor.py"
        )
    return mask


def _mask_name(dataset: str, image_path: Path) -> str:
    """An image's own; of one's own photographs, which several folders may call alike, with a checksum of the folder."""
    if dataset != OWN:
        return f"{image_path.stem}.png"
    folder = hashlib.sha256(os.fsencode(image_path.parent.resolve())).hexdigest()
    return f"{image_path.stem}-{folder[:8]}.png"


def _clear_object(grey: np.ndarray) -> np.ndarray:
    """The side of Otsu's threshold that the border is not on, everything if that is no clear object; uint8 (H, W).

    Each part is filled to its convex hull: a part of the object that is as light as the background (a highlight, a
    nut's bright side) would otherwise be cut out of it.
    """
    threshold, bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)  # (H, W) of 0 and 1
    border = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    bright_background = border.mean() > 0.5
    mask = 1 - bright if bright_background else bright
    purity = max(border.mean(), 1 - border.mean())
    separability, contrast = _otsu_quality(grey, int(threshold))
    clear = purity >= MIN_BORDER_PURITY and separability >= MIN_SEPARABILITY and contrast >= MIN_CONTRAST
    if not clear or not AREA_RANGE[0] <= mask.mean() <= AREA_RANGE[1]:
        return np.ones_like(grey)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for outline in outlines:  # a handful: the image is smooth
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 1)
    return mask


def _otsu_quality(grey: np.ndarray, threshold: int) -> tuple[float, float]:
    """Between-class share of the variance (0..1) and difference of the means of a split at grey > threshold."""
    levels = np.arange(256)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    dark = share[: threshold + 1].sum()
    mean = levels @ share
    variance = (levels - mean) ** 2 @ share
    if variance == 0 or dark in (0, 1):
        return 0.0, 0.0
    dark_mean = levels[: threshold + 1] @ share[: threshold + 1] / dark
    contrast = (mean - dark_mean) / (1 - dark)  # bright mean - dark mean
    return dark * (1 - dark) * contrast**2 / variance, contrast
