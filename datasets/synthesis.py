"""Synthetic anomalies for Stage I: a changed texture blended into a normal image inside a Perlin-noise mask.

    rng = np.random.default_rng(0)
    image, mask, label = synthesise_anomaly(image, foreground, texture, rng)

The recipe is DRAEM's (Zavrtanik et al., ICCV 2021, section 3.3), with the mask kept to the object's foreground. Every
function is deterministic in `rng`; the pixel work is done by OpenCV and Pillow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from datasets.base import IMAGE_SUFFIXES, DataError

CLEAN_SHARE = 0.2  # of the images stay without an anomaly
MIN_PIXELS = 4  # a mask with no more pixels than this is drawn again
MAX_REDRAWS = 10
PERLIN_MAX_EXPONENT = 5  # 2^0 .. 2^5 cells a side
PERLIN_THRESHOLD = 0.5
MAX_IMAGE_WEIGHT = 0.8  # how much of the image may shine through
CHANGES_PER_TEXTURE = 3

# The photographs inside the scikit-image package. Its brick, grass and gravel are not used: the demo data set is cut
# from them, and a normal image must not serve as its own anomaly.
BUILTIN_TEXTURES = (
    "astronaut.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "hubble_deep_field.jpg",
    "ihc.png", "microaneurysms.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg",
    "rocket.jpg",
)  # fmt: skip

TextureChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]


# ------------------------------------------------------------------------------------------------------ where and what


def synthesise_anomaly(
    image: np.ndarray, foreground: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Paint a synthetic anomaly into a normal image, or leave it clean (one time in five).

    image, texture: uint8 (S, S, 3) RGB, both at the training size. foreground: uint8 (S, S) of 0 and 1; the anomaly
    stays inside. An image whose mask keeps no more than 4 pixels after 10 redraws stays clean as well.

    Returns the image uint8 (S, S, 3), the mask uint8 (S, S) of 0 and 1, and the label (1 = anomalous). The inputs are
    not changed. Raises ValueError if the sizes differ or an image is not uint8.
    """
    _check_inputs(image, foreground, texture)
    clean = rng.random() < CLEAN_SHARE
    mask = np.zeros_like(foreground, dtype=np.uint8) if clean else _draw_mask(foreground, rng)
    if not mask.any():
        return image.copy(), mask, 0
    changed = change_texture(texture, rng)  # (S, S, 3)
    return blend(image, changed, mask, image_weight=rng.uniform(0, MAX_IMAGE_WEIGHT)), mask, 1


def blend(image: np.ndarray, texture: np.ndarray, mask: np.ndarray, image_weight: float) -> np.ndarray:
    """(1 - image_weight) * texture + image_weight * image where mask is 1, the image elsewhere; uint8 (H, W, 3)."""
    mixed = cv2.addWeighted(texture, 1 - image_weight, image, image_weight, 0)
    return np.where(mask[:, :, None] > 0, mixed, image)


def perlin_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random blotchy mask: rotated Perlin noise above 0.5; uint8 (size, size) of 0 and 1, may be empty."""
    rows, columns = (2 ** int(k) for k in rng.integers(0, PERLIN_MAX_EXPONENT + 1, size=2))
    angles = rng.uniform(0, 2 * math.pi, size=(rows + 1, columns + 1))
    noise = perlin_noise((size, size), (rows, columns), angles)  # (S, S)
    return (_rotate(noise, rng.uniform(-90, 90)) > PERLIN_THRESHOLD).astype(np.uint8)


def perlin_noise(shape: tuple[int, int], cells: tuple[int, int], angles: np.ndarray) -> np.ndarray:
    """Gradient noise on a grid of `cells`, times sqrt(2), roughly in -1..1 (Perlin, SIGGRAPH 2002).

    shape: (H, W) in pixels; cells: (rows, columns); angles: (rows + 1, columns + 1) in radians, the direction of the
    gradient at each corner, measured from the row axis (downwards).

    A pixel sums over its four corners (fade weight) * (gradient . offset). Weight and offset are products of a row and
    a column term, so the sum over corners is two matrix products.

    Returns float32 (H, W). Raises ValueError if `angles` does not fit `cells`.
    """
    rows, columns = cells
    if angles.shape != (rows + 1, columns + 1):
        raise ValueError(f"{rows}x{columns} cells need angles of shape {(rows + 1, columns + 1)}, got {angles.shape}")
    row_weight, row_moment = _corner_weights(shape[0], rows)  # (H, rows + 1) each
    column_weight, column_moment = _corner_weights(shape[1], columns)  # (W, columns + 1) each
    noise = row_moment @ np.cos(angles) @ column_weight.T + row_weight @ np.sin(angles) @ column_moment.T
    return (math.sqrt(2) * noise).astype(np.float32)  # (H, W)


def _corner_weights(length: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of an axis the fade weight of each grid line, and that weight times the offset from the line."""
    position = np.arange(length) * cells / length
    cell = position.astype(int)
    offset = position - cell  # 0..1 within the cell
    fade = ((6 * offset - 15) * offset + 10) * offset**3
    pixel = np.arange(length)
    weight, moment = np.zeros((2, length, cells + 1))
    weight[pixel, cell], weight[pixel, cell + 1] = 1 - fade, fade
    moment[pixel, cell], moment[pixel, cell + 1] = (1 - fade) * offset, fade * (offset - 1)
    return weight, moment


def _draw_mask(foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Perlin masks inside the foreground until one has more than 4 pixels; empty if 10 redraws did not give one."""
    for _ in range(1 + MAX_REDRAWS):
        mask = perlin_mask(foreground.shape[0], rng) * (foreground > 0)
        if np.count_nonzero(mask) > MIN_PIXELS:
            return mask
    return np.zeros_like(mask)


def _check_inputs(image: np.ndarray, foreground: np.ndarray, texture: np.ndarray) -> None:
    size = image.shape[0]
    if image.shape != (size, size, 3) or texture.shape != image.shape or foreground.shape != (size, size):
        raise ValueError(
            "expected image and texture (S, S, 3) and foreground (S, S) of one size, "
            f"got {image.shape}, {texture.shape} and {foreground.shape}"
        )
    if image.dtype != np.uint8 or texture.dtype != np.uint8:
        raise ValueError(f"expected uint8 image and texture, got {image.dtype} and {texture.dtype}")


def _rotate(array: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate about the centre at the same size, bilinearly; what comes from outside is 0."""
    height, width = array.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(array, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)


# ---------------------------------------------------------------------------------------------------- texture changes


def change_texture(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply 3 of the 10 `TEXTURE_CHANGES`, drawn without replacement, in the order drawn; uint8 (H, W, 3) RGB."""
    for index in rng.choice(len(TEXTURE_CHANGES), size=CHANGES_PER_TEXTURE, replace=False):
        texture = TEXTURE_CHANGES[index](texture, rng)
    return texture


def gamma(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma contrast, an exponent in 0.5..2 for each channel."""
    exponents = rng.uniform(0.5, 2.0, size=3)
    table = 255 * (np.arange(256)[:, None] / 255) ** exponents  # (256, 3)
    return cv2.LUT(texture, np.rint(table).astype(np.uint8)[None])


def brightness(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The luma times 0.8..1.2, then plus -30..30."""
    factor, shift = rng.uniform(0.8, 1.2), rng.uniform(-30, 30)
    luma, red, blue = cv2.split(cv2.cvtColor(texture, cv2.COLOR_RGB2YCrCb))
    luma = cv2.LUT(luma, np.clip(np.rint(np.arange(256) * factor + shift), 0, 255).astype(np.uint8))
    return cv2.cvtColor(cv2.merge((luma, red, blue)), cv2.COLOR_YCrCb2RGB)


def sharpness(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From smoothed (0) over unchanged (1) to sharpened (2)."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(texture)).enhance(rng.uniform(0, 2)))


def hue_saturation(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hue and saturation plus -50..50 each, where 255 is the whole circle and full saturation."""
    hue_shift, saturation_shift = rng.uniform(-50, 50, size=2)
    levels = np.arange(256)
    hue, saturation, value = cv2.split(cv2.cvtColor(texture, cv2.COLOR_RGB2HSV_FULL))  # hue 0..255
    hue = cv2.LUT(hue, (np.rint(levels + hue_shift) % 256).astype(np.uint8))
    saturation = cv2.LUT(saturation, np.clip(np.rint(levels + saturation_shift), 0, 255).astype(np.uint8))
    return cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2RGB_FULL)


def solarise(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half the time: invert the values from a threshold of 32..128 upwards."""
    threshold = int(rng.integers(32, 129))
    if rng.random() < 0.5:
        return texture
    return np.asarray(ImageOps.solarize(Image.fromarray(texture), threshold))


def posterise(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the highest 1..8 bits of each value."""
    return np.asarray(ImageOps.posterize(Image.fromarray(texture), int(rng.integers(1, 9))))


def invert(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The negative; draws nothing."""
    return cv2.bitwise_not(texture)


def autocontrast(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stretch each channel to 0..255 after cutting off 0..20 % of the values at either end."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(texture), cutoff=int(rng.integers(0, 21))))


def equalise(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Equalise the histogram of each channel; draws nothing."""
    return np.asarray(ImageOps.equalize(Image.fromarray(texture)))


def rotate(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate by -45..45 degrees about the centre; the corners that come from outside are black."""
    return _rotate(texture, rng.uniform(-45, 45))


TEXTURE_CHANGES: tuple[TextureChange, ...] = (
    gamma, brightness, sharpness, hue_saturation, solarise, posterise, invert, autocontrast, equalise, rotate,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------ texture files


def list_textures(aux_path: Path | str) -> list[Path]:
    """All images below a folder, sorted by path; "builtin" stands for the photographs that scikit-image ships.

    Raises DataError if the folder is missing or holds no image.
    """
    if str(aux_path) == "builtin":
        return _builtin_textures()
    folder = Path(aux_path)
    if not folder.is_dir():
        raise DataError(f"no texture folder {folder}; --aux_path takes the images folder of DTD, or builtin")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DataError(f"no texture image below {folder}; --aux_path takes the images folder of DTD, or builtin")
    return paths


def find_aux_path(data_root: Path) -> Path:
    """The images folder of DTD beside a data set: `../dtd/images` or `../DRAEM_dtd/dtd/images` seen from its root.

    Raises DataError with the places looked at and the flag that helps.
    """
    parents = dict.fromkeys((Path(os.path.abspath(data_root)).parent, Path(data_root).resolve().parent))  # links
    places = [parent / name for parent in parents for name in ("dtd/images", "DRAEM_dtd/dtd/images")]
    for place in places:
        if place.is_dir():
            return place
    looked_at = ", ".join(str(place) for place in places)
    raise DataError(f"no texture images in {looked_at}; give --aux_path DTD_IMAGES or --aux_path builtin")


def _builtin_textures() -> list[Path]:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    paths = [folder / name for name in BUILTIN_TEXTURES if (folder / name).is_file()]
    if not paths:
        raise DataError(f"scikit-image ships no photographs in {folder}: give --aux_path DTD_IMAGES")
    return paths
