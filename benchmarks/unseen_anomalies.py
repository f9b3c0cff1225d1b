"""Synthetic anomalies that no training stage sees, on good images held out of training: what a model is judged by where
test labels must not be looked at.

    images, masks, kinds = make_unseen_anomalies(images, foregrounds, textures, seed=0)

Eight kinds, all different from Stage I's Perlin-shaped texture blends: a foreign texture, a part of another image
cloned in seamlessly (after "Natural Synthetic Anomalies", Schlüter et al., ECCV 2022), a smudge, a scratch, a missing
part, a local warp, a light or dark spot, and a blurred or grainy spot. Sizes and strengths vary from hard to see to
obvious. The work is per image in OpenCV: a few hundred images are made once a category.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

VISIBLE = 8  # grey levels: a pixel is anomalous where some channel changed by more,
VISIBLE_SIGMA = 1.5  # smoothed with a Gaussian of so many pixels
MIN_PIXELS = 12  # an anomaly with fewer anomalous pixels is drawn again
MAX_REDRAWS = 20
HARMONICS = 4  # of a region's outline


class Sort(NamedTuple):
    """What anomalies are drawn."""

    areas: tuple[float, float]  # smallest and largest, shares of the image: drawn evenly in the logarithm
    kinds: Sequence[str] = ()  # all where none is named
    contrast: float = 0.0  # least mean difference of the anomalous pixels, grey levels


SMALL = Sort((0.0005, 0.05))
LARGE = Sort((0.02, 0.3))  # as of wear, stains and missing parts
OBVIOUS = Sort((0.003, 0.1), ("texture", "paste", "smudge", "missing"), contrast=35)  # other kinds hardly ever are


class Place(NamedTuple):
    """Region that an anomaly covers."""

    weight: np.ndarray  # float32 (S, S, 1): 1 inside, falling softly to 0 at the outline
    centre: tuple[int, int]  # x, y
    radius: float  # pixels, of a disc of the same area


class Scene(NamedTuple):
    """Images that an anomaly is made of, and its place."""

    image: np.ndarray  # float32 (S, S, 3), of 0..255
    place: Place
    other: np.ndarray  # another good image, or the same: uint8 (S, S, 3)
    texture: np.ndarray  # uint8 (S, S, 3)


Kind = Callable[[Scene, np.random.Generator], np.ndarray]  # returns the changed image (S, S, 3), not clipped


def make_unseen_anomalies(
    images: np.ndarray, foregrounds: np.ndarray, textures: Sequence[np.ndarray], seed: int, sort: Sort = SMALL,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Give every image one anomaly of each kind of the sort.

    images: uint8 (N, S, S, 3); foregrounds: uint8 (N, S, S) of 0 and 1, each anomaly is centred there; textures: uint8
    (T, 3, S, S), planes as Stage I has them. An anomaly that cannot be seen, or not well enough for the sort, after 20
    attempts is left out.

    Returns images uint8 (M, S, S, 3), masks uint8 (M, S, S) of 0 and 1, and the kind of each.
    """
    made, masks, kinds = [], [], []
    for index, (image, foreground) in enumerate(zip(images, foregrounds, strict=True)):
        for number, (name, kind) in enumerate(KINDS.items()):
            if sort.kinds and name not in sort.kinds:
                continue
            rng = np.random.default_rng([seed, index, number])
            for _ in range(MAX_REDRAWS):
                changed = change(kind, image, foreground, images, textures, rng, sort.areas)
                mask = visible_change(image, changed)
                if mask.sum() >= MIN_PIXELS and difference(image, changed)[mask > 0].mean() >= sort.contrast:
                    made.append(changed)
                    masks.append(mask)
                    kinds.append(name)
                    break
    shape = images.shape[1:3]
    return np.array(made, np.uint8).reshape(-1, *shape, 3), np.array(masks, np.uint8).reshape(-1, *shape), kinds


def change(
    kind: Kind, image: np.ndarray, foreground: np.ndarray, images: np.ndarray, textures: Sequence[np.ndarray],
    rng: np.random.Generator, areas: tuple[float, float],
) -> np.ndarray:
    """An image uint8 (S, S, 3) with an anomaly of one kind, seen or not; grey where the image is."""
    other = images[rng.integers(len(images))]
    texture = np.moveaxis(np.asarray(textures[int(rng.integers(len(textures)))]), 0, -1)
    changed = kind(Scene(image.astype(np.float32), draw_place(foreground, rng, areas), other, texture), rng)
    if (image == image[..., :1]).all():  # a grey camera sees no colour in an anomaly either
        changed = np.repeat(changed.mean(axis=2, keepdims=True), 3, axis=2)
    return changed.round().clip(0, 255).astype(np.uint8)


def visible_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mask uint8 (S, S) of what can be seen to differ between two images uint8 (S, S, 3).

    The difference is smoothed, so that speckle does not count and a region has few holes.
    """
    visible = cv2.GaussianBlur(difference(before, after), (0, 0), VISIBLE_SIGMA) > VISIBLE
    return cv2.morphologyEx(visible.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The largest channel's difference of two images uint8 (S, S, 3): float32 (S, S), grey levels."""
    return cv2.absdiff(before, after).max(axis=2).astype(np.float32)


def draw_place(foreground: np.ndarray, rng: np.random.Generator, areas: tuple[float, float] = SMALL.areas) -> Place:
    """A blob of random size, outline and softness, centred in the foreground uint8 (S, S)."""
    size = len(foreground)
    inside = np.flatnonzero(foreground)
    at = rng.choice(inside) if len(inside) else rng.integers(size * size)
    y, x = divmod(int(at), size)
    area = size * size * math.exp(rng.uniform(*map(math.log, areas)))
    radius, stretch, turn = math.sqrt(area / math.pi), math.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, math.pi)
    down, right = np.mgrid[:size, :size].astype(np.float32) - np.float32([y, x])[:, None, None]
    along = (right * math.cos(turn) + down * math.sin(turn)) / stretch
    across = (down * math.cos(turn) - right * math.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    outline = 1 + sum(
        rng.uniform(-0.5, 0.5) / k * np.cos(k * angle + rng.uniform(0, 2 * math.pi)) for k in range(1, HARMONICS + 1)
    )
    depth = radius * outline - np.hypot(along, across)  # pixels inside the outline, roughly
    softness = max(1.0, rng.uniform(0, 0.5) * radius)
    weight = (depth / softness + 0.5).clip(0, 1)
    return Place(weight[..., None].astype(np.float32), (x, y), radius)


def texture(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A foreign texture shines through."""
    image, place, *_ = scene
    return mix(image, scene.texture, place.weight * rng.uniform(0.2, 1))


def paste(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A part of another good image, turned and rescaled, cloned in without a seam."""
    image, place, *_ = scene
    size = len(image)
    about = rng.uniform(0.25, 0.75, 2) * size
    turned = cv2.getRotationMatrix2D(tuple(about), rng.uniform(0, 360), math.exp(rng.uniform(-0.7, 0.7)))
    turned[:, 2] += np.array(place.centre) - about
    patch = cv2.warpAffine(scene.other, turned, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    region = (place.weight[..., 0] > 0.5).astype(np.uint8)
    region[[0, -1]] = region[:, [0, -1]] = 0  # the clone needs a border
    x, y, width, height = cv2.boundingRect(region)
    if width < 3 or height < 3:
        return image
    middle = (x + width // 2, y + height // 2)  # so that the patch stays where it is
    way = cv2.MIXED_CLONE if rng.random() < 0.3 else cv2.NORMAL_CLONE
    cloned = cv2.seamlessClone(patch, image.astype(np.uint8), 255 * region, middle, way)
    return mix(image, cloned, region[..., None] * rng.uniform(0.6, 1))


def smudge(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A wiped stain of one colour."""
    image, place, *_ = scene
    length = max(3, int(place.radius) | 1)
    streak = np.zeros((length, length), np.float32)
    direction = rng.uniform(0, math.pi)
    reach = length / 2 * np.array([math.cos(direction), math.sin(direction)])
    middle = np.array([length // 2, length // 2])
    cv2.line(streak, tuple((middle - reach).astype(int)), tuple((middle + reach).astype(int)), 1.0)
    noise = rng.normal(size=image.shape[:2]).astype(np.float32)
    stripes = cv2.filter2D(noise, -1, streak, borderType=cv2.BORDER_REFLECT_101)
    density = 0.6 + 0.4 * np.tanh(stripes / max(stripes.std(), 1e-6))
    colour = image[place.centre[1], place.centre[0]] + rng.choice([-1, 1]) * rng.uniform(20, 120, 3)
    return mix(image, colour.clip(0, 255), place.weight * density[..., None] * rng.uniform(0.3, 0.9))


def scratch(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A thin bent line, lighter or darker than what it crosses."""
    image, place, *_ = scene
    points = [np.array(place.centre, np.float64)]
    direction, step = rng.uniform(0, 2 * math.pi), max(3.0, place.radius)
    for _ in range(rng.integers(2, 7)):
        direction += rng.normal(0, 0.35)
        points.append(points[-1] + step * np.array([math.cos(direction), math.sin(direction)]))
    line = np.zeros(image.shape[:2], np.uint8)
    scale = 16  # OpenCV draws with four binary digits after the point
    path = (np.array(points) * scale).round().astype(np.int32)
    cv2.polylines(line, [path], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA, shift=4)
    weight = line[..., None].astype(np.float32) / 255
    return image + weight * rng.choice([-1, 1]) * rng.uniform(20, 100)


def missing(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A part is gone: what surrounds it has grown in, or the image's border shows."""
    image, place, *_ = scene
    region = (place.weight[..., 0] > 0.5).astype(np.uint8)
    if rng.random() < 0.5:
        return cv2.inpaint(image.astype(np.uint8), region, 3, cv2.INPAINT_TELEA).astype(np.float32)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    background = np.median(border, axis=0) + rng.normal(0, 2, image.shape)
    return mix(image, background, place.weight)


def warp(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The part is pushed, swollen, pinched or twisted."""
    image, place, *_ = scene
    size = len(image)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    right, down = x - place.centre[0], y - place.centre[1]
    spread = max(4.0, 1.5 * place.radius)
    near = np.exp(-(right**2 + down**2) / (2 * spread**2)).astype(np.float32)
    way = rng.integers(3)
    if way == 0:  # pushed
        direction, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1) * spread
        x, y = x + near * reach * math.cos(direction), y + near * reach * math.sin(direction)
    elif way == 1:  # swollen or pinched
        factor = rng.uniform(0.25, 0.6) * rng.choice([-1, 1])
        x, y = x + near * factor * right, y + near * factor * down
    else:  # twisted
        turn = near * rng.uniform(0.4, 1.5) * rng.choice([-1, 1])
        x = place.centre[0] + np.cos(turn) * right - np.sin(turn) * down
        y = place.centre[1] + np.sin(turn) * right + np.cos(turn) * down
    return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REFLECT_101)


def spot(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A spot is lighter or darker, with a soft border."""
    image, place, *_ = scene
    soft = cv2.GaussianBlur(place.weight, (0, 0), max(1.0, 0.3 * place.radius))[..., None]
    gain = math.exp(rng.choice([-1, 1]) * rng.uniform(0.15, 0.6))
    return image * (1 + soft * (gain - 1))


def grain(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A spot is out of focus, or grainy."""
    image, place, *_ = scene
    if rng.random() < 0.5:
        return mix(image, cv2.GaussianBlur(image, (0, 0), rng.uniform(1.5, 5)), place.weight)
    noise = cv2.GaussianBlur(rng.normal(size=image.shape[:2]).astype(np.float32), (0, 0), rng.uniform(0.5, 1.5))
    return image + place.weight * (noise / noise.std() * rng.uniform(8, 35))[..., None]


KINDS: dict[str, Kind] = {kind.__name__: kind for kind in (texture, paste, smudge, scratch, missing, warp, spot, grain)}


def mix(image: np.ndarray, other: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """`weight` of the other image, the rest of the first."""
    return (1 - weight) * image + weight * np.asarray(other, np.float32)
