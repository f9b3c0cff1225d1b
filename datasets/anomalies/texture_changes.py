"""The ten changes that make a texture look like a defect, each for a batch of textures with parameters of their own.

Every change takes textures uint8 (N, 3, H, W) and its draws, uniform numbers in [0, 1) of shape (N, k), on the same
device, and returns uint8 (N, 3, H, W); the docstrings say what the k numbers stand for. No pixel leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHANGES_PER_TEXTURE = 3


class TextureChange(NamedTuple):
    apply: Callable[[Tensor, Tensor], Tensor]
    draws: int  # numbers it takes for each texture
    pixelwise: bool  # whether each pixel depends on itself alone


def change_textures(textures: Tensor, draws: Tensor, places: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Apply 3 of the 10 `TEXTURE_CHANGES` to each texture, without replacement, in the order drawn.

    textures: uint8 (N, 3, H, W); draws: (N, DRAWS) on the CPU, so that no device has to be asked which change comes.
    places: of each texture the pixels that are wanted, positions (P,) in 0..H*W-1.

    Returns N textures uint8 (3, H, W) or, with places, their pixels there, (3, 1, P): changes that look at a pixel
    alone and come last are then made of these pixels only.
    """
    changed = list(textures.unbind(0))
    orders = draws[:, : len(TEXTURE_CHANGES)].argsort(dim=1)[:, :CHANGES_PER_TEXTURE].tolist()
    parameters = draws[:, len(TEXTURE_CHANGES) :].split([change.draws for change in TEXTURE_CHANGES], dim=1)
    whole = [CHANGES_PER_TEXTURE if places is None else _count_whole(order) for order in orders]
    for step in range(CHANGES_PER_TEXTURE):
        for index, change in enumerate(TEXTURE_CHANGES):
            rows = [row for row, order in enumerate(orders) if order[step] == index and step < whole[row]]
            if rows:
                chosen = parameters[index][rows].to(textures.device, non_blocking=True)
                results = change.apply(torch.stack([changed[row] for row in rows]), chosen)
                for row, result in zip(rows, results.unbind(0), strict=True):
                    changed[row] = result
    for row, wanted in enumerate(places or ()):
        pixels = changed[row].flatten(1).index_select(1, wanted)[None, :, None]  # (1, 3, 1, P)
        for index in orders[row][whole[row] :]:
            pixels = TEXTURE_CHANGES[index].apply(pixels, parameters[index][row : row + 1])
        changed[row] = pixels[0]
    return changed


def _count_whole(order: Sequence[int]) -> int:
    """Number of changes up to the last that is not pixelwise: they are made of whole textures."""
    return max((step + 1 for step, index in enumerate(order) if not TEXTURE_CHANGES[index].pixelwise), default=0)


def gamma(textures: Tensor, draws: Tensor) -> Tensor:
    """Gamma contrast; 3 draws: each channel's exponent in 0.5..2."""
    exponents = _between(0.5, 2.0, draws)[:, :, None]
    return _look_up(textures, to_uint8((_levels(textures) / 255) ** exponents * 255))


def brightness(textures: Tensor, draws: Tensor) -> Tensor:
    """The luma times 0.8..1.2, then plus -30..30; 2 draws. Chroma stays, so all channels move by what the luma does."""
    factor, shift = _between(0.8, 1.2, draws[:, 0]), _between(-30, 30, draws[:, 1])
    red, green, blue = textures.float().unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round_()  # (N, H, W), ITU-R BT.601
    changed = (luma * _each(factor) + _each(shift)).round_().clamp_(0, 255)
    return to_uint8(textures + (changed - luma)[:, None])


def sharpness(textures: Tensor, draws: Tensor) -> Tensor:
    """Change from smoothed (0) over unchanged (1) to sharpened (2); 1 draw. The outermost pixels stay, as in Pillow."""
    factor = _between(0, 2, draws)[:, :, None, None]
    values = textures.float()
    inner = values[:, :, 1:-1, 1:-1]
    rows = values[..., :-2] + values[..., 1:-1] + values[..., 2:]  # (N, 3, H, W - 2)
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # sums of 3x3 pixels
    smooth = (box + 4 * inner).div_(13).round_()  # weights 1, the centre's 5
    changed = textures.clone()
    changed[:, :, 1:-1, 1:-1] = to_uint8(smooth + factor * (inner - smooth))
    return changed


def hue_saturation(textures: Tensor, draws: Tensor) -> Tensor:
    """Hue and saturation plus -50..50 each, where 255 is the whole circle and full saturation; 2 draws."""
    hue_shift, saturation_shift = (_each(_between(-50, 50, draws[:, k])) / 255 for k in (0, 1))
    red, green, blue = textures.float().unbind(1)  # (N, H, W) each
    value, low = textures.amax(1).float(), textures.amin(1).float()
    chroma = value - low
    first = 1 - (value - red).clamp_(max=1)  # 1 where red is the largest; arithmetic is quicker than comparisons here
    second = (1 - (value - green).clamp_(max=1)) * (1 - first)
    third = 1 - first - second
    hue = first * (green - blue) + second * (blue - red) + third * (red - green)
    hue = hue / chroma.clamp_min(1) + 2 * second + 4 * third + 6 * hue_shift  # in sixths of the circle; grey: anything
    chroma = value * (chroma / value.clamp_min(1) + saturation_shift).clamp_(0, 1)
    channels = []
    for offset in (5, 3, 1):  # red, green, blue are the same hat function of the hue, a third of the circle apart
        place = hue + offset
        place = place - 6 * (place / 6).floor_()  # 0..6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1))
    return to_uint8(torch.stack(channels, dim=1))


def solarise(textures: Tensor, draws: Tensor) -> Tensor:
    """Half the time: invert the values from a threshold of 32..128 upwards; 2 draws: whether, and the threshold."""
    levels = _levels(textures)
    inverted = (levels >= _each(_integer(32, 128, draws[:, 1]))) & _each(draws[:, 0] < 0.5)  # (N, 1, 256)
    return _look_up(textures, torch.where(inverted, 255 - levels, levels).expand(-1, 3, -1))


def posterise(textures: Tensor, draws: Tensor) -> Tensor:
    """Keep the highest 1..8 bits of each value; 1 draw."""
    dropped = 8 - _integer(1, 8, draws[:, 0])
    return textures & _each(((255 >> dropped) << dropped).to(torch.uint8))[..., None]


def invert(textures: Tensor, draws: Tensor) -> Tensor:
    """The negative; no draw."""
    return 255 - textures


def autocontrast(textures: Tensor, draws: Tensor) -> Tensor:
    """Stretch each channel to 0..255 after cutting off 0..20 % of the values at either end; 1 draw.

    As Pillow does: whole percents, values between rounded down, a channel of a single value left as it is.
    """
    pixels = textures.shape[-2] * textures.shape[-1]
    cut = (pixels * _integer(0, 20, draws)).div(100, rounding_mode="floor")[:, :, None]  # (N, 1, 1) values
    below = _histogram(textures).cumsum(dim=-1)  # (N, 3, 256): pixels up to each value
    low = (below <= cut).sum(dim=-1, keepdim=True)  # the darkest value left, (N, 3, 1)
    high = (below < pixels - cut).sum(dim=-1, keepdim=True)
    levels = _levels(textures)
    stretched = ((levels - low) * 255).div((high - low).clamp_min(1), rounding_mode="floor").clamp(0, 255)
    return _look_up(textures, torch.where(high > low, stretched, levels))


def equalise(textures: Tensor, draws: Tensor) -> Tensor:
    """Equalise the histogram of each channel, as Pillow does; no draw."""
    counts = _histogram(textures)
    brightest = counts.shape[-1] - 1 - (counts.flip(-1) > 0).int().argmax(dim=-1, keepdim=True)  # (N, 3, 1)
    step = (counts.sum(dim=-1, keepdim=True) - counts.gather(2, brightest)).div(255, rounding_mode="floor")
    before = counts.cumsum(dim=-1) - counts  # pixels below each value
    table = (before + step.div(2, rounding_mode="floor")).div(step.clamp_min(1), rounding_mode="floor").clamp(0, 255)
    return _look_up(textures, torch.where(step > 0, table, _levels(textures)))


def rotate(textures: Tensor, draws: Tensor) -> Tensor:
    """Rotate by -45..45 degrees about the centre; 1 draw. The corners that come from outside are black."""
    return to_uint8(rotate_images(textures.float(), _between(-45, 45, draws[:, 0])))


def rotate_images(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images (N, C, H, W) counter-clockwise by degrees (N,), bilinearly; what comes from outside is 0."""
    height, width = images.shape[-2:]
    radians = _each(degrees * (math.pi / 180))
    across = torch.linspace(-1, 1, width, device=images.device)[None, None, :]
    down = torch.linspace(-1, 1, height, device=images.device)[None, :, None]
    oblong = (height - 1) / (width - 1)
    source = images.new_empty(len(images), height, width, 2)  # where each pixel comes from
    torch.sub(radians.cos() * across, radians.sin() * (down * oblong), out=source[..., 0])
    torch.add(radians.sin() * (across / oblong), radians.cos() * down, out=source[..., 1])
    return F.grid_sample(images, source, align_corners=True)


TEXTURE_CHANGES = (
    TextureChange(gamma, 3, pixelwise=True),
    TextureChange(brightness, 2, pixelwise=True),
    TextureChange(sharpness, 1, pixelwise=False),
    TextureChange(hue_saturation, 2, pixelwise=True),
    TextureChange(solarise, 2, pixelwise=True),
    TextureChange(posterise, 1, pixelwise=True),
    TextureChange(invert, 0, pixelwise=True),
    TextureChange(autocontrast, 1, pixelwise=False),
    TextureChange(equalise, 0, pixelwise=False),
    TextureChange(rotate, 1, pixelwise=False),
)
DRAWS = len(TEXTURE_CHANGES) + sum(change.draws for change in TEXTURE_CHANGES)  # for each texture


def _between(low: float, high: float, draws: Tensor) -> Tensor:
    return low + (high - low) * draws


def _integer(lowest: int, highest: int, draws: Tensor) -> Tensor:
    """Whole numbers lowest..highest, equally likely."""
    return lowest + (draws * (highest - lowest + 1)).long()


def _each(values: Tensor) -> Tensor:
    return values[:, None, None]  # (N,) beside (N, H, W)


def _levels(textures: Tensor) -> Tensor:
    return torch.arange(256, device=textures.device)[None, None]  # (1, 1, 256)


def _look_up(textures: Tensor, table: Tensor) -> Tensor:
    """Replace each value by the table's, one (N, 3, 256) a channel."""
    return table.to(torch.uint8).gather(2, textures.flatten(2).long()).view_as(textures)


def to_uint8(values: Tensor) -> Tensor:
    values = values.round_().clamp_(0, 255)
    return values.to(torch.int16).to(torch.uint8)  # in two steps: the direct one is not vectorised


def _histogram(images: Tensor) -> Tensor:
    """Pixels of each value in each channel: (N, 3, H, W) -> (N, 3, 256)."""
    values = images.flatten(2).long()
    ones = torch.ones_like(values, dtype=torch.int32)  # a single one spread over all values would take twice the time
    return ones.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, ones)
