"""Tiny data sets of every layout, for tests: each function writes one below `root` and returns `root`.

The images are learnable: good ones are a smooth pattern with a little noise, each defect adds a bright square, and the
mask is that square. All of it follows from the seed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DEFECTS = {"crack": 2, "hole": 1}  # images of each defect
LOCO_DEFECTS = [
    {"defect_name": "square", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
    {"defect_name": "part", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
]


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """Write an array (uint8 or uint16, (H, W) or (H, W, 3|4)) as an image, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def touch(folder: Path, *names: str) -> None:
    """Make empty files, with the folders that they need."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def good_image(rng: np.random.Generator, size: int) -> np.ndarray:
    """A smooth colour pattern with noise, uint8 (size, size, 3)."""
    x = np.linspace(0, 2 * np.pi, size)
    wave = 90 + 30 * np.sin(x)[:, None, None] * np.cos(x)[None, :, None] + np.array([0, 15, 30])
    return np.clip(wave + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


def defect_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A good image with a bright square, uint8 (size, size, 3), and the mask of it, uint8 0/255 (size, size)."""
    pixels, mask = good_image(rng, size), np.zeros((size, size), np.uint8)
    top, left = rng.integers(0, size - size // 4, 2)
    mask[top : top + size // 4, left : left + size // 4] = 255
    pixels[mask > 0] = (250, 240, 60)
    return pixels, mask


def write_split(
    rng: np.random.Generator, size: int, images: str, masks: str | None, defects: dict[str, int], suffix: str = ".png"
) -> None:
    """Write numbered images, and masks for the defects, to path patterns that take `defect` and `stem`."""
    for defect, count in defects.items():
        for number in range(count):
            names = {"defect": defect, "stem": f"{number:03d}"}
            pixels, mask = (good_image(rng, size), None) if defect == "good" else defect_image(rng, size)
            write_image(Path(images.format(**names) + suffix), pixels)
            if masks is not None and mask is not None:
                write_image(Path(masks.format(**names) + ".png"), mask)


def make_mvtec(
    root: Path,
    categories: Sequence[str] = ("bottle",),
    train: int = 3,
    good: int = 2,
    defects: dict[str, int] | None = None,
    size: int = 32,
    suffix: str = ".png",
    mask_ending: str = "_mask",
    with_masks: bool = True,
) -> Path:
    """MVTec AD's layout; with other category names it is the plain folder layout."""
    for seed, category in enumerate(categories):
        rng, base = np.random.default_rng(seed), root / category
        write_split(rng, size, f"{base}/train/{{defect}}/{{stem}}", None, {"good": train}, suffix)
        masks = f"{base}/ground_truth/{{defect}}/{{stem}}{mask_ending}" if with_masks else None
        tests = {"good": good} | (DEFECTS if defects is None else defects)
        write_split(rng, size, f"{base}/test/{{defect}}/{{stem}}", masks, tests, suffix)
    return root


def make_folder(root: Path, categories: Sequence[str] = ("widget",), **options) -> Path:
    """The plain folder layout; options as in `make_mvtec`."""
    return make_mvtec(root, categories, **options)


def make_mvtec3d(
    root: Path,
    categories: Sequence[str] = ("bagel",),
    train: int = 3,
    good: int = 2,
    defects: dict[str, int] | None = None,
    size: int = 32,
) -> Path:
    """MVTec 3D-AD's layout with validation split and the all-zero masks of good images, without the xyz images."""
    for seed, category in enumerate(categories):
        rng, base = np.random.default_rng(seed), root / category
        for split, count in (("train", train), ("validation", 1)):
            write_split(rng, size, f"{base}/{split}/{{defect}}/rgb/{{stem}}", None, {"good": count})
        images, masks = f"{base}/test/{{defect}}/rgb/{{stem}}", f"{base}/test/{{defect}}/gt/{{stem}}"
        write_split(rng, size, images, masks, {"good": good} | (DEFECTS if defects is None else defects))
        for number in range(good):
            write_image(base / "test" / "good" / "gt" / f"{number:03d}.png", np.zeros((size, size), np.uint8))
    return root


def make_mvtec_ad2(
    root: Path, categories: Sequence[str] = ("can",), train: int = 3, good: int = 2, bad: int = 3, size: int = 32
) -> Path:
    """MVTec AD 2's layout with its validation and one of its private test splits."""
    for seed, category in enumerate(categories):
        rng, base = np.random.default_rng(seed), root / category
        for split, count in (("train", train), ("validation", 1)):
            write_split(rng, size, f"{base}/{split}/{{defect}}/{{stem}}_regular", None, {"good": count})
        write_split(rng, size, f"{base}/test_private/{{stem}}_regular", None, {"good": 1})
        images, masks = (f"{base}/test_public/{part}{{defect}}/{{stem}}_regular" for part in ("", "ground_truth/"))
        write_split(rng, size, images, f"{masks}_mask", {"good": good, "bad": bad})
    return root


def make_mvtec_loco(
    root: Path, categories: Sequence[str] = ("pushpins",), train: int = 3, good: int = 2, size: int = 32
) -> Path:
    """MVTec LOCO AD's layout with its validation split; each anomalous image has two masks, of LOCO_DEFECTS,
    the second a part of the first."""
    defects = {"logical_anomalies": 2, "structural_anomalies": 1}
    for seed, category in enumerate(categories):
        rng, base = np.random.default_rng(seed), root / category
        for split, count in (("train", train), ("validation", 1)):
            write_split(rng, size, f"{base}/{split}/{{defect}}/{{stem}}", None, {"good": count})
        masks = f"{base}/ground_truth/{{defect}}/{{stem}}/000"
        write_split(rng, size, f"{base}/test/{{defect}}/{{stem}}", masks, {"good": good} | defects)
        for path in list((base / "ground_truth").rglob("000.png")):
            mask = np.array(Image.open(path))
            mask[:, : size // 2] = 0
            write_image(path.with_name("001.png"), np.where(mask, 254, 0).astype(np.uint8))
        (base / "defects_config.json").write_text(json.dumps(LOCO_DEFECTS))
    return root


def make_visa(
    root: Path,
    categories: Sequence[str] = ("candle",),
    train: int = 3,
    good: int = 2,
    anomalies: int = 3,
    size: int = 32,
    meta: bool = False,
) -> Path:
    """VisA's layout with split_csv/1cls.csv or, with `meta`, with meta.json in its place; mask values are 0 and 1."""
    rows = []
    for seed, category in enumerate(categories):
        rng, images, masks = np.random.default_rng(seed), f"{category}/Data/Images", f"{category}/Data/Masks/Anomaly"
        for number in range(train + good):
            path = f"{images}/Normal/{number:04d}.JPG"
            write_image(root / path, good_image(rng, size))
            rows.append((category, "train" if number < train else "test", "normal", path, ""))
        for number in range(anomalies):
            path, mask_path = f"{images}/Anomaly/{number:03d}.JPG", f"{masks}/{number:03d}.png"
            pixels, mask = defect_image(rng, size)
            write_image(root / path, pixels)
            write_image(root / mask_path, mask // 255)
            rows.append((category, "test", "anomaly", path, mask_path))
    write_visa_meta(root, rows) if meta else write_visa_csv(root, rows)
    return root


def write_visa_csv(root: Path, rows: Sequence[tuple[str, str, str, str, str]]) -> Path:
    """Write split_csv/1cls.csv from rows of object, split, label, image, mask."""
    path = root / "split_csv" / "1cls.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return path


def write_visa_meta(root: Path, rows: Sequence[tuple[str, str, str, str, str]]) -> Path:
    """Write meta.json from rows of object, split, label, image, mask."""
    meta: dict[str, dict[str, list]] = {split: {row[0]: [] for row in rows} for split in ("train", "test")}
    for category, split, label, image, mask in rows:
        entry = {"img_path": image, "mask_path": mask, "cls_name": category, "specie_name": ""}
        meta[split][category].append(entry | {"anomaly": int(label == "anomaly")})
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps(meta))
    return root / "meta.json"
