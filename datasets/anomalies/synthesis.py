"""Synthetic anomalies for Stage I: a changed texture blended into a normal image inside a Perlin-noise mask.

The recipe is DRAEM's (Zavrtanik et al., ICCV 2021, section 3.3), with the mask kept to the object's foreground. A whole
batch is made at a time, on the device that holds it. All that is random comes from `draws`, uniform numbers drawn on
the CPU, a row for each image: the same rows give the same anomalies in any batch, on any device.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from datasets.anomalies.texture_changes import DRAWS, change_textures, rotate_images, to_uint8
from datasets.sizes import Size, height_width

CLEAN_SHARE = 0.2  # of the images stay without an anomaly
MIN_PIXELS = 4  # a mask with no more pixels than this is drawn again
MAX_REDRAWS = 10
PERLIN_MAX_EXPONENT = 5  # 2^0 .. 2^5 cells a side
PERLIN_THRESHOLD = 0.5
MAX_IMAGE_WEIGHT = 0.8  # how much of the image may shine through

CORNERS = 2**PERLIN_MAX_EXPONENT + 1  # grid lines of the finest noise
MASK_DRAWS = 3 + CORNERS**2  # of one Perlin mask: cells down and across, rotation, gradients
ANOMALY_DRAWS = 3 + DRAWS + (1 + MAX_REDRAWS) * MASK_DRAWS  # clean or not, which texture, image weight, ...


def draw_anomalies(count: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) for `count` anomalies: float32 (count, ANOMALY_DRAWS), on the CPU as the generator."""
    return torch.rand(count, ANOMALY_DRAWS, generator=generator)


def synthesise_anomalies(images: Tensor, foregrounds: Tensor, textures: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Paint a synthetic anomaly into each normal image, or leave it clean (one in five).

    images: uint8 (N, 3, H, W) RGB. foregrounds: uint8 (N, H, W) of 0 and 1; the anomaly stays inside. textures: uint8
    (T, 3, H, W), anything that gives such a tensor when indexed with a tensor of positions. draws: `draw_anomalies(N)`.
    An image whose mask keeps no more than 4 pixels after 10 redraws stays clean as well.

    Returns new images uint8 (N, 3, H, W) and masks uint8 (N, 1, H, W) of 0 and 1, on the images' device. Raises
    ValueError for shapes that do not fit and images that are not uint8.
    """
    _check_inputs(images, foregrounds, textures, draws)
    device = images.device
    rows = (draws[:, 0] >= CLEAN_SHARE).nonzero().squeeze(1)  # on the CPU: no device has to be asked
    painted, masks = images.clone(), torch.zeros_like(foregrounds)
    if len(rows) == 0:
        return painted, masks[:, None]
    draws = draws.index_select(0, rows)
    chosen = select_rows(textures, (draws[:, 1] * len(textures)).long()).to(device, non_blocking=True)  # (n, 3, H, W)
    weights = (MAX_IMAGE_WEIGHT * draws[:, 2]).to(device, non_blocking=True)
    texture_draws, mask_draws = draws[:, 3:].split([DRAWS, (1 + MAX_REDRAWS) * MASK_DRAWS], dim=1)
    drawn = draw_masks(select_rows(foregrounds, rows), mask_draws.view(len(rows), 1 + MAX_REDRAWS, MASK_DRAWS))
    for row, mask in zip(rows.tolist(), drawn, strict=True):
        masks[row] = mask
    if selects_pixels(device):
        _paint_pixels(painted, rows, drawn, chosen, texture_draws, weights)
        return painted, masks[:, None]
    changed = torch.stack(change_textures(chosen, texture_draws))
    outside = 1 - drawn.float()[:, None]  # (n, 1, H, W): there the image has all the weight
    mixed = blend(select_rows(images, rows), changed, torch.maximum(outside, weights[:, None, None, None]))
    painted[rows.to(device, non_blocking=True)] = mixed
    return painted, masks[:, None]


def _paint_pixels(
    painted: Tensor, rows: Tensor, masks: Tensor, textures: Tensor, texture_draws: Tensor, weights: Tensor
) -> None:
    """Paint n anomalies into the given rows of `painted`, computing no more than the P pixels inside the masks."""
    owner, place = masks.flatten(1).nonzero().unbind(1)  # (P,) each: which anomaly, and where in its image
    places = place.split(owner.bincount(minlength=len(rows)).tolist())
    changed = torch.cat(change_textures(textures, texture_draws, places), dim=2)[:, 0]  # (3, P)
    planes = 3 * rows[owner] + torch.arange(3)[:, None]  # (3, P)
    positions = planes * masks[0].numel() + place
    painted.put_(positions, blend(painted.take(positions), changed, weights[owner]))


def selects_pixels(device: torch.device) -> bool:
    """Tell whether only the pixels in a mask are changed: elsewhere than on a CPU, asking for them would wait."""
    return device.type == "cpu"


def blend(images: Tensor, textures: Tensor, image_weights: Tensor) -> Tensor:
    """(1 - weight) * texture + weight * image, uint8; the weights have a shape that can be spread to that of both."""
    return to_uint8((1 - image_weights) * textures + image_weights * images)


def draw_masks(foregrounds: Tensor, draws: Tensor) -> Tensor:
    """Perlin masks uint8 (N, H, W) inside the foregrounds, each the first candidate with more than 4 pixels, or empty.

    foregrounds: uint8 (N, H, W) of 0 and 1; draws: (N, candidates, MASK_DRAWS) on the CPU.
    """
    masks = torch.zeros_like(foregrounds)
    pending = torch.arange(len(foregrounds))  # rows without a mask so far
    for candidate in draws.to(foregrounds.device, non_blocking=True).unbind(1):
        made = perlin_masks(foregrounds.shape[-2:], select_rows(candidate, pending))
        inside = made * select_rows(foregrounds, pending)
        enough = inside.sum(dim=(1, 2)) > MIN_PIXELS
        if not selects_pixels(foregrounds.device):  # nor is looked which masks are large enough: all are made
            first = enough & (masks.sum(dim=(1, 2)) == 0)
            masks = torch.where(first[:, None, None], inside, masks)
            continue
        for row, mask, large in zip(pending.tolist(), inside, enough.tolist(), strict=True):
            if large:
                masks[row] = mask
        pending = pending[~enough]
        if len(pending) == 0:
            break
    return masks


def perlin_masks(size: Size, draws: Tensor) -> Tensor:
    """Random blotchy masks: rotated Perlin noise above 0.5; draws (N, MASK_DRAWS), returns uint8 (N, H, W) of a size.
    Those of oblong images are cut from square ones."""
    exponents = (draws[:, :2] * (PERLIN_MAX_EXPONENT + 1)).long()  # (N, 2): rows and columns have 2^k cells
    degrees = 180 * draws[:, 2] - 90
    angles = 2 * math.pi * draws[:, 3:].view(-1, CORNERS, CORNERS)
    height, width = height_width(size)
    noise = perlin_noise(max(height, width), exponents, angles)  # (N, S, S)
    return (rotate_images(noise[:, None], degrees)[:, 0, :height, :width] > PERLIN_THRESHOLD).to(torch.uint8)


def perlin_noise(size: int, exponents: Tensor, angles: Tensor) -> Tensor:
    """Gradient noise float32 (N, size, size), times sqrt(2), roughly in -1..1 (Perlin, SIGGRAPH 2002).

    exponents: (N, 2), the grid of noise n has 2^exponents[n, 0] rows and 2^exponents[n, 1] columns of cells. angles:
    (N, CORNERS, CORNERS) in radians, the direction of the gradient at each corner, measured from the row axis
    (downwards); a grid of r x c cells takes the first (r + 1) x (c + 1).

    A pixel sums over its four corners (fade weight) * (gradient . offset). Weight and offset are products of a row and
    a column term, so the sum over corners is a matrix product.
    """
    weights, moments = (table.to(angles.device) for table in _corner_tables(size))  # (exponents, S, CORNERS) each
    row_weight, row_moment = weights[exponents[:, 0]], moments[exponents[:, 0]]  # (N, S, CORNERS)
    column_weight, column_moment = weights[exponents[:, 1]], moments[exponents[:, 1]]
    down = torch.cat([row_moment @ angles.cos(), row_weight @ angles.sin()], dim=2)  # (N, S, 2 * CORNERS)
    return math.sqrt(2) * down @ torch.cat([column_weight, column_moment], dim=2).mT


@lru_cache(maxsize=4)
def _corner_tables(size: int) -> tuple[Tensor, Tensor]:
    """For each number of cells 2^k and pixel of an axis the fade weight of each grid line, and that weight times the
    offset from the line; (exponents, size, CORNERS) each."""
    weights, moments = torch.zeros(2, PERLIN_MAX_EXPONENT + 1, size, CORNERS)
    pixel = torch.arange(size)
    for exponent in range(PERLIN_MAX_EXPONENT + 1):
        position = pixel * 2**exponent / size
        cell = position.long()
        offset = position - cell  # 0..1 within the cell
        fade = ((6 * offset - 15) * offset + 10) * offset**3
        weights[exponent, pixel, cell], weights[exponent, pixel, cell + 1] = 1 - fade, fade
        moments[exponent, pixel, cell], moments[exponent, pixel, cell + 1] = (1 - fade) * offset, fade * (offset - 1)
    return weights, moments


def select_rows(stack: Tensor, positions: Tensor) -> Tensor:
    """stack[positions]; of a tensor whole rows are copied so, while indexing copies value by value."""
    if isinstance(stack, Tensor):
        return stack.index_select(0, positions.to(stack.device, non_blocking=True))
    return stack[positions]


def _check_inputs(images: Tensor, foregrounds: Tensor, textures: Tensor, draws: Tensor) -> None:
    count, (height, width) = len(images), images.shape[-2:]
    if images.shape != (count, 3, height, width) or foregrounds.shape != (count, height, width):
        raise ValueError("expected images (N, 3, H, W) and foregrounds (N, H, W), "
                         f"got {tuple(images.shape)} and {tuple(foregrounds.shape)}")
    if tuple(textures.shape[1:]) != (3, height, width) or len(textures) == 0:
        raise ValueError(f"expected textures (T, 3, {height}, {width}), got {tuple(textures.shape)}")
    if images.dtype != torch.uint8 or textures.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images and textures, got {images.dtype} and {textures.dtype}")
    if draws.shape != (count, ANOMALY_DRAWS):
        raise ValueError(f"expected draws {(count, ANOMALY_DRAWS)}, got {tuple(draws.shape)}")
