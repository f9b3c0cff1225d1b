"""Sizes of images that models are shown: one number for a square, or height and width."""

from __future__ import annotations

from collections.abc import Sequence

Size = int | Sequence[int]  # pixels


def height_width(size: Size) -> tuple[int, int]:
    """Height and width of a size. Raises ValueError for more or fewer numbers than two."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def in_words(size: Size) -> str:
    """The size for a message: "256", or "256 x 512" (height x width)."""
    height, width = height_width(size)
    return str(height) if height == width else f"{height} x {width}"
