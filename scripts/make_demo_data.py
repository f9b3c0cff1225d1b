"""Make a small data set in MVTec AD's layout from three photographs that scikit-image ships: brick, grass, gravel.

    python scripts/make_demo_data.py --output demo/data

Crops of the left part of a photograph are the training images, crops of the right part the test images, so that no
pixel is in both. Two thirds of the test images carry a painted scratch, blob, hole or patch, with its exact mask.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.system.missing  # noqa: F401

# isort: split
import cv2
import numpy as np
import skimage.data

from datasets.marks import DEMO, mark_of, png_bytes
from datasets.names import printable
from utils.cli import CommandParser, at_least, run_command, user_path
from utils.system.files import atomic_write
from utils.system.own_files import holds, refuse_foreign

PHOTOGRAPHS = ("brick", "grass", "gravel")  # grey, 512x512
TRAIN_COLUMNS = 336  # of the photograph; the other 176 are for the test
CROP = 128  # pixels of the photograph, enlarged to the image size
DESIGN_SIZE = 256  # pixels; the defects' sizes below are for images of this size
MIN_OPACITY = 0.1  # fainter paint is left out


# ---------------------------------------------------------------------- defects: opacity 0..1 and material, both (S, S)


def scratch(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One or two long, slightly bent strokes, much lighter or darker than the crop."""
    size = len(crop)
    drawn = np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(1, 3)):
        direction, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.012, 0.012)  # radians, radians per pixel
        steps = np.arange(rng.uniform(70, 160))
        angles = direction + bend * steps
        path = np.stack([np.cos(angles).cumsum(), np.sin(angles).cumsum()], axis=1) * size / DESIGN_SIZE
        path += rng.uniform(0.3, 0.7, 2) * size - path.mean(axis=0)
        width = max(1, round(rng.uniform(4, 7) * size / DESIGN_SIZE))
        cv2.polylines(drawn, [np.rint(path).astype(np.int32)], False, 255, width, cv2.LINE_AA)
    level = _far_level(crop, rng, 80, 120)
    return drawn / 255 * 0.95, np.full(crop.shape, level) + rng.normal(0, 6, crop.shape)


def blob(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A stain: an irregular area, lighter or darker, through which the crop can be seen."""
    area = cv2.GaussianBlur(_irregular_area(len(crop), rng, 16, 34), (0, 0), 1.5)
    return area * rng.uniform(0.75, 0.95), np.full(crop.shape, _far_level(crop, rng, 80, 120))


def hole(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A small dark pit with a lighter bottom edge, as if lit from above."""
    area = cv2.GaussianBlur(_irregular_area(len(crop), rng, 9, 20), (0, 0), 0.8)
    shifted = cv2.warpAffine(area, np.float32([[1, 0, 0], [0, 1, -4 * len(crop) / DESIGN_SIZE]]), crop.shape[::-1])
    return area, np.where(shifted > 0.5, rng.uniform(5, 30), np.clip(crop * 1.1 + 50, 0, 255))


def patch(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle at any angle where the surface is worn smooth."""
    size = len(crop)
    sides = rng.uniform(36, 76, 2) * size / DESIGN_SIZE
    corners = cv2.boxPoints((tuple(rng.uniform(0.25, 0.75, 2) * size), tuple(sides), rng.uniform(0, 90)))
    drawn = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(drawn, np.rint(corners).astype(np.int32), 255, cv2.LINE_AA)
    worn = cv2.GaussianBlur(crop, (0, 0), 6 * size / DESIGN_SIZE) + rng.choice([-1, 1]) * rng.uniform(8, 22)
    return drawn / 255, worn + rng.normal(0, 2, crop.shape)


DEFECTS = {"scratch": scratch, "blob": blob, "hole": hole, "patch": patch}


def damage(crop: np.ndarray, defect: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint a defect on a crop, uint8 (S, S).

    Returns the image, uint8 (S, S), and the mask, uint8 (S, S) of 0 and 255: exactly where the image is not the crop.
    """
    opacity, material = DEFECTS[defect](crop, rng)
    mask = opacity > MIN_OPACITY
    painted = np.clip(np.rint(crop + opacity * (material - crop)), 0, 255).astype(np.uint8)
    painted = np.where(painted == crop, crop ^ 1, painted)  # paint that happens to match: one grey level off
    return np.where(mask, painted, crop), mask.astype(np.uint8) * 255


def _irregular_area(size: int, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A filled outline whose radius wanders around a value in low..high pixels; float32 (S, S) of 0 and 1."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = sum(rng.uniform(-0.3, 0.3) / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 6))
    radii = rng.uniform(low, high) * size / DESIGN_SIZE * (1 + waves)
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + rng.uniform(0.2, 0.8, 2) * size
    drawn = np.zeros((size, size), np.float32)
    cv2.fillPoly(drawn, [np.rint(outline).astype(np.int32)], 1.0)
    return drawn


def _far_level(crop: np.ndarray, rng: np.random.Generator, low: float, high: float) -> float:
    """A grey level that is low..high away from the crop's mean, on either side where there is room for it."""
    distance, mean = rng.uniform(low, high), crop.mean()
    options = [level for level in (mean - distance, mean + distance) if 0 <= level <= 255]
    return rng.choice(options) if options else (0.0 if mean > 127 else 255.0)


# ------------------------------------------------------------------------------------------------------- the data set


def random_crop(region: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A square of the photograph, mirrored half the time, brightness varied by 6 %, enlarged; uint8 (size, size)."""
    top, left = (int(rng.integers(0, side - CROP + 1)) for side in region.shape)
    crop = region[top : top + CROP, left : left + CROP]
    if rng.random() < 0.5:  # the bricks' joints lean one way in the left of the photograph, the other way in the right
        crop = crop[:, ::-1]
    enlarged = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.convertScaleAbs(enlarged, alpha=rng.uniform(0.94, 1.06))


def make_category(
    photograph: np.ndarray, size: int, train: int, test_good: int, test_defective: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the images and masks of a category as (path within the category, uint8 (S, S))."""
    train_region, test_region = photograph[:, :TRAIN_COLUMNS], photograph[:, TRAIN_COLUMNS:]
    for index in range(train):
        yield f"train/good/{index:03}.png", random_crop(train_region, size, rng)
    for index in range(test_good):
        yield f"test/good/{index:03}.png", random_crop(test_region, size, rng)
    kinds = list(DEFECTS)
    for index in range(test_defective):
        kind, stem = kinds[index % len(kinds)], f"{index // len(kinds):03}"
        image, mask = damage(random_crop(test_region, size, rng), kind, rng)
        yield f"test/{kind}/{stem}.png", image
        yield f"ground_truth/{kind}/{stem}_mask.png", mask


def make_parser() -> argparse.ArgumentParser:
    parser = CommandParser(description=__doc__.split("\n", 1)[0], allow_abbrev=True)
    add = parser.add_argument
    add("--output", type=user_path, required=True, metavar="DIR", help="the data set's folder; made if it is not there")
    add("--size", type=at_least(32), default=256, metavar="N", help="of the images, in pixels (default 256)")
    add("--train", type=at_least(1), default=40, metavar="N", help="training images of a category (default 40)")
    add("--test_good", type=at_least(1), default=12, metavar="N", help="good test images of a category (default 12)")
    add("--test_defective", type=at_least(1), default=24, metavar="N", help="damaged ones, all kinds in turn "
        "(default 24)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="the same seed gives the same images (default 0)")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    images = {
        options.output / category / name: image
        for number, category in enumerate(PHOTOGRAPHS)
        for name, image in make_category(
            getattr(skimage.data, category)(), options.size, options.train, options.test_good, options.test_defective,
            rng=np.random.default_rng([options.seed, number]),
        )
    }
    visible = (path for path in options.output.rglob("*") if not path.name.startswith("."))
    others = [path for path in visible if path.is_file() and path not in images]
    if others:
        raise FileExistsError(f"{options.output} holds other files, such as {others[0]}; choose another --output")

    def is_ours(path: Path) -> bool:
        return mark_of(path) == DEMO or holds(path, images[path])

    refuse_foreign(images, is_ours, "choose another --output")
    for path, image in images.items():
        with atomic_write(path) as temporary:
            temporary.write_bytes(png_bytes(image, DEMO))
    print(f"wrote {len(images)} images and masks of {len(PHOTOGRAPHS)} categories to {printable(options.output)}")


if __name__ == "__main__":
    run_command(main)
