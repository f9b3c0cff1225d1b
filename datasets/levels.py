"""Stored pixel values that are black and white, where files do not say: one rule for a category.

A 16-bit file may hold 10, 12 or 16 bits, a float file 0..1, 0..255 or degrees. What a file declares counts; otherwise
the training images decide together, once, and every later image is read the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras give
OVERSHOOT = 1 / 64  # of the span: what filters leave above white and below black in computed images
LEAST_SPREAD = 1 / 8  # of black to white; of what uses less, the range itself is enlarged
FAR_BELOW = 1 / 4  # of white: an image that ends below may have another depth than the others
FAR_BELOW_WHITE = "image ends far below white: has it another depth?"
NAMES = {"uint8": "8 bits", "uint16": "16 bits", "int32": "32 bits", "float32": "floating point"}


@dataclass(frozen=True)
class Range:
    """The values of an image as its file has them.

    kind: "uint8", "uint16", "int32" or "float32"; white: what the file declares to be white, 0 if nothing; depth: the
    significant bits that a PNG's sBIT or the highest value in a TIFF's tags name, 0 if none. Those of a PNG may lie at
    either end of its 16: the standard asks for the upper one, and not all writers comply.
    """

    kind: str
    low: float
    high: float
    white: float = 0.0
    depth: int = 0

    @property
    def own_white(self) -> float:
        """White as far as this image alone can tell: what it declares, or the end of the scale that it seems to use."""
        if self.white:
            return self.white
        if self.depth and self.high <= _end(self.depth):
            return _end(self.depth)
        if self.depth and self.kind == "uint16":
            return _end(16)
        ends = [*map(_end, DEPTHS), _power_above(self.high)]
        if self.kind == "float32":
            ends.insert(0, 1.0)
        slack = 0 if self.kind == "uint16" else OVERSHOOT
        return next(end for end in ends if self.high <= end * (1 + slack))

    def __str__(self) -> str:
        """Depth and values, e.g. "8 bits" or "16 bits, values 12..4080"."""
        if self.kind == "uint8":
            return NAMES[self.kind]
        if self.white:
            return f"{math.log2(self.white + 1):g} bits"
        named = f" ({self.depth} significant)" if self.depth else ""
        return f"{NAMES[self.kind]}{named}, values {self.low:.6g}..{self.high:.6g}"


Scale = tuple[float, float]  # the values that are black and white
KINDS = ("uint16", "int32", "float32")  # whose files need not say which these are


@dataclass(frozen=True)
class Levels:
    """Black and white of each kind of files that are not of 8 bits and do not declare them; None: none was seen."""

    uint16: Scale | None = None
    int32: Scale | None = None
    float32: Scale | None = None

    def __post_init__(self):
        for name, scale in vars(self).items():
            if scale is None:
                continue
            numbers = isinstance(scale, tuple) and len(scale) == 2 and all(map(_is_number, scale))
            if not numbers or not scale[0] < scale[1]:
                raise ValueError(f"{name} of levels must be black and white, two rising numbers, got {scale!r}"[:200])

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> Levels:
        """The levels of training images. Where they use little of the usual scale, e.g. temperatures, it is their own
        range with as much again on either side."""
        undeclared: dict[str, list[Range]] = {}
        for one in ranges:
            if one.kind != "uint8" and not one.white:
                undeclared.setdefault(one.kind, []).append(one)
        return cls(**{kind: _common_scale(found) for kind, found in undeclared.items()})

    @classmethod
    def up_to(cls, white: float) -> Levels:
        """The same levels 0..white for every kind."""
        return cls(**dict.fromkeys(KINDS, (0.0, float(white))))

    @classmethod
    def from_dict(cls, content: Any) -> Levels:
        """The inverse of dataclasses.asdict, tuples being lists. Raises ValueError for anything else."""
        if not isinstance(content, dict) or sorted(content) != sorted(KINDS):
            raise ValueError(f"levels have {', '.join(KINDS)}")
        return cls(**{name: tuple(scale) if isinstance(scale, list) else scale for name, scale in content.items()})

    def scale_of(self, values: Range) -> Scale:
        """Black and white of an image. Raises ValueError if its values do not fit, or nothing tells what is white."""
        if values.kind == "uint8":
            return 0.0, 255.0
        if values.white:
            return 0.0, values.white
        scale = getattr(self, values.kind)
        if scale is None:
            if values.kind == "uint16" and values.high > _end(14):
                return 0.0, _end(16)
            raise ValueError(f"it has {values}, and neither it nor the training images tell which value is white; "
                             "convert it to 8 bits")
        black, white = scale
        slack = 0 if values.kind == "uint16" else OVERSHOOT * (white - black)
        if values.low < black - slack or values.high > white + slack:
            raise ValueError(f"it has {values}, which do not fit the training images', where black is {black:g} and "
                             f"white {white:g}")
        return scale

    def doubt(self, values: Range) -> str:
        """Why the values of an image that fits may mean something else than the training images' do, or ""."""
        _, white = self.scale_of(values)
        if values.kind == "uint8" or values.white or values.high > FAR_BELOW * white:
            return ""
        return f"{values}; white is {white:g}"


def _common_scale(ranges: list[Range]) -> Scale:
    low, high = min(one.low for one in ranges), max(one.high for one in ranges)
    white = max(one.own_white for one in ranges)
    black = 0.0 if low >= -OVERSHOOT * white else -_power_above(-low)
    spread = high - low
    if not all(one.depth for one in ranges) and 0 < spread < LEAST_SPREAD * (white - black):
        return low - spread, high + spread
    return black, white


def depth_of_white(white: object) -> int:
    """The bits of which a number is the highest value, if cameras give so many, or 1 of a float's 1.0; 0 of others."""
    return next((bits for bits in (1, *DEPTHS) if white == _end(bits)), 0)


def _end(bits: int) -> float:
    return 2.0**bits - 1


def _power_above(value: float) -> float:
    """The smallest power of two that is not below; 1 of what is not above 0."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


EARLIER_LEVELS = Levels(uint16=(0.0, 65535.0))  # of models whose files do not say
