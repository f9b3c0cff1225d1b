"""Regions of MVTec LOCO AD and how much of each must be found, as <category>/defects_config.json says.

Each mask file is one region, whose grey value says what the defect is. An entry of the list is, e.g.,

    {"defect_name": "missing_bolt", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": true}

The threshold counts pixels of the mask file, or is a share of the region where it is relative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from datasets.base import DataError, decoded, describe
from datasets.folders import list_images
from datasets.masks import anomalous_pixels, shrink_mask
from datasets.names import printable
from datasets.plain_json import read_json, typed
from datasets.sizes import Size

DEFECTS_CONFIG = "defects_config.json"


class Region(NamedTuple):
    """An anomalous region, which counts as found when a share of its pixels is.

    pixels: (P,) places in the flattened mask, none twice; share: above 0, at most 1.
    """

    pixels: np.ndarray
    share: float


class Saturation(Struct):
    """The part of an entry that is read."""

    pixel_value: Annotated[int, Meta(ge=1)]
    saturation_threshold: Annotated[float, Meta(gt=0)]
    relative_saturation: bool

    def __post_init__(self) -> None:
        if self.relative_saturation and self.saturation_threshold > 1:
            raise ValueError(f"a relative saturation_threshold is at most 1, not {self.saturation_threshold}")

    def share(self, area: int) -> float:
        """The share of a region of `area` pixels at which it saturates."""
        return self.saturation_threshold if self.relative_saturation else min(self.saturation_threshold / area, 1.0)


Saturations = dict[int, Saturation]  # by grey value


def read_saturations(path: Path) -> Saturations:
    """The entries of a defects_config.json. Raises DataError naming the file."""
    try:
        entries = typed(read_json(path), list[Saturation])
        saturations = {entry.pixel_value: entry for entry in entries}
        if twice := [entry.pixel_value for entry in entries if saturations[entry.pixel_value] != entry]:
            raise ValueError(f"pixel_value {twice[0]} has two thresholds")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {printable(path)}: {describe(error)}") from error
    return saturations


def read_regions(folder: Path, saturations: Saturations, size: Size | None = None) -> list[Region]:
    """The regions of an image whose masks are in `folder`, with `size` as `shrink_mask` resizes them.

    The share is that of the mask as its file has it. Masks without an anomalous pixel are no regions. Raises DataError
    naming a mask that cannot be read, or whose grey value the saturations do not list.
    """
    regions = []
    for path in list_images(folder):
        with decoded(path, photograph=False) as image:
            mask, values = anomalous_pixels(image), image.pixels()
        levels = np.unique(values[mask > 0])
        if not levels.size:
            continue
        if levels.size > 1 or int(levels[0]) not in saturations:
            found, listed = (", ".join(map(str, sorted(some))) for some in (levels.tolist(), saturations))
            raise DataError(f"{printable(path)} has the grey levels {found}; a mask has one of those that "
                            f"{DEFECTS_CONFIG} lists ({listed})")
        share = saturations[int(levels[0])].share(np.count_nonzero(mask))
        regions.append(Region(np.flatnonzero(mask if size is None else shrink_mask(mask, size)), share))
    return regions
