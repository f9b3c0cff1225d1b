"""A memory of patches of good images: what a patch resembles, and what is usual for patches like it.

A patch is what levels 2 and 3 of the teacher say about one position of level 2, each averaged over 3x3 positions, as in
PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 1024  # patches of the memory that a batch is compared with in one product
ALIKE = 8  # patches of the memory, the nearest ones of a patch and itself, that are usual together
PRIOR = 60.0  # positions of the whole training set that are added to those of each patch
LIMIT = 3.0  # deviations: what a distance has more counts in its logarithm
WEIGHT = 3.0  # of the distances to the memory, a level of the student weighs 1
STANDING = 0.5  # share of what is usual for a patch, among all patches, that its distances keep


def embed(levels: Sequence[Tensor]) -> Tensor:
    """The patches (N, C2 + C3, H/8, W/8), float32, of a teacher's three levels."""
    level2, level3 = (F.avg_pool2d(level.float(), 3, stride=1, padding=1) for level in levels[1:])
    level3 = F.interpolate(level3, level2.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([level2, level3], dim=1)


def nearness(patches: Tensor, others: Tensor) -> Tensor:
    """How near patches (..., C) are to others (M, C), in one product: (..., M), largest for the nearest one."""
    return F.linear(patches, others, -others.square().sum(dim=1) / 2)


def squared_distances(patches: Tensor, near: Tensor) -> Tensor:
    """The squared Euclidean distances (..., M) of patches (..., C) that are so near (..., M) to others."""
    return (patches.square().sum(dim=-1, keepdim=True) - 2 * near).clamp_min(0)  # rounding makes them negative


class Memory(nn.Module):
    """The patches that are remembered, (M, C); none as made. Files of any number of patches can be loaded."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("patches", torch.empty(0, channels))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, own in self.named_buffers():
            setattr(self, name, own.new_empty(state_dict.get(prefix + name, own).shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __len__(self) -> int:
        return len(self.patches)

    def nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The distance of each patch (N, C, h, w) to the nearest one in the memory, and its place there: (N, h, w)."""
        rows = patches.movedim(1, -1)  # (N, h, w, C)
        parts = [nearness(rows, part).max(dim=-1) for part in self.patches.split(AT_ONCE)]
        nearest, part = torch.stack([near for near, _ in parts]).max(dim=0)
        places = torch.stack([place + AT_ONCE * number for number, (_, place) in enumerate(parts)])
        return squared_distances(rows, nearest[..., None])[..., 0].sqrt(), places.gather(0, part[None])[0]


class LocalStandardisation(Memory):
    """Distances relative to those of similar patches of good images: what is usual on a plain surface is not what is
    usual on a rough one, or beside the object.

    Each patch of the memory has mean and deviation of several distances at the training images' positions that it is
    the nearest one of: those of the student at each level, and the distance to the memory itself, measured without the
    patches of the same image. Distances at such a position are counted from this mean, in such deviations. They keep a
    part of how this mean stands among those of all positions: where good images differ, defects are likely too.

    Distances count from 0 on. A lower one is no sign of a good image: the student rebuilds some defects well, large
    smooth ones above all, and must not outvote the memory there. What they have beyond `limit` counts in its logarithm,
    since the map is smoothed: a glaring spot would outshine all that lies around it.

    patches: (M, C); images: (M,), numbers of the training images that they are of; origin, deviation: (M, levels + 1);
    weights: (levels + 1,); limit: a number. The last two are in files, so that maps do not change with the code.
    """

    def __init__(self, channels: int, levels: int):
        super().__init__(channels)
        self.register_buffer("origin", torch.empty(0, levels + 1))
        self.register_buffer("deviation", torch.empty(0, levels + 1))
        self.register_buffer("images", torch.empty(0, dtype=torch.long))
        self.register_buffer("weights", torch.tensor([1.0] * levels + [WEIGHT]))
        self.register_buffer("limit", torch.tensor(LIMIT))

    def forward(self, patches: Tensor, distances: Sequence[Tensor]) -> list[Tensor]:
        """Distances (N, H_l, W_l) of each level at the positions of patches (N, C, h, w), then those of the patches to
        the memory (N, h, w), all as they count in the map: 0 or more."""
        compared = zip(self.weights, self.compare(patches, distances), strict=True)
        return [weight * soften(distance, self.limit) for weight, distance in compared]

    def compare(self, patches: Tensor, distances: Sequence[Tensor]) -> list[Tensor]:
        """The same distances as they stand against good images: around 0, of deviation about 1."""
        away, place = self.nearest(patches)
        usual = zip((*distances, away), self.origin[place].unbind(-1), self.deviation[place].unbind(-1), strict=True)
        return [(now - resize(origin, now)) / resize(deviation, now) for now, origin, deviation in usual]

    def nearest_of_others(self, patches: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """`nearest` for patches (N, C, h, w) of the training images of these numbers (N,), without the memory's patches
        of the same image; with those if it has no others."""
        same = images[:, None].to(self.images) == self.images  # (N, M)
        same &= ~same.all(dim=1, keepdim=True)
        rows = patches.movedim(1, -1)  # (N, h, w, C)
        nearest = [  # an image at a time: of all there is not always room
            nearness(row, self.patches).masked_fill_(own, -torch.inf).max(dim=-1)
            for row, own in zip(rows, same, strict=True)
        ]
        near, place = (torch.stack(of) for of in zip(*nearest, strict=True))
        return squared_distances(rows, near[..., None])[..., 0].sqrt(), place

    def set_usual(self, count: Tensor, sums: Tensor, squares: Tensor) -> None:
        """Set origin and deviation by the number of positions of each patch (M,), and the sums (M, levels + 1) of their
        distances and of the squares of these; of patches alike together."""
        whole, whole_square = (of.sum(dim=0) / count.sum() for of in (sums, squares))  # (levels + 1,)
        alike = nearness(self.patches, self.patches).topk(min(ALIKE, len(self)), dim=1).indices
        number = count[alike].sum(dim=1)[:, None] + PRIOR
        mean = (sums[alike].sum(dim=1) + PRIOR * whole) / number
        deviation = deviation_of(mean, (squares[alike].sum(dim=1) + PRIOR * whole_square) / number)
        standing = (mean - whole) / deviation_of(whole, whole_square)
        self.origin = (mean - STANDING * standing * deviation).to(self.patches)
        self.deviation = deviation.to(self.patches)


def soften(distances: Tensor, limit: Tensor) -> Tensor:
    """Distances as they are from 0 to the limit, 0 below, and limit * (1 + log(distance / limit)) above: without a jump
    and without a kink at the limit."""
    return distances.clamp_min(0).minimum(limit) + limit * (distances.maximum(limit) / limit).log()


def deviation_of(mean: Tensor, square: Tensor) -> Tensor:
    """The standard deviation of values with this mean and mean square; 1 where they are all equal."""
    deviation = (square - mean**2).clamp_min(0).sqrt()
    return torch.where(deviation > 0, deviation, 1)


def resize(values: Tensor, like: Tensor) -> Tensor:
    """Values (N, h, w) at the size of others, bilinearly with aligned corners."""
    if values.shape == like.shape:
        return values
    return F.interpolate(values[:, None], like.shape[-2:], mode="bilinear", align_corners=True)[:, 0]
