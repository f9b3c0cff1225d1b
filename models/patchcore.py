"""PatchCore: how far a patch is from the nearest one of a memory of good patches is its anomaly; nothing is trained.

As in Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (CVPR 2022): levels 2 and 3, each averaged
over 3x3 positions; a greedy k-centre coreset, searched in a random projection; the score weighted by how lonely the
nearest patch is (Eq. 7). Two things differ: the levels are joined as they are, not pooled to 1024 channels, and the
coreset is chosen from patches drawn at random (utils/training/fitting.py), so that filling takes seconds whatever the
number of images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.aand import MAP_SIGMA, gaussian_smooth, sum_levels
from models.folding import fold_batch_norms
from models.memory import Memory, embed, nearness, squared_distances
from models.recipes import Recipe
from models.teacher import PretrainedTeacher

NEIGHBOURS = 9  # of the nearest patch, by which the score is weighted


class PatchCore(nn.Module):
    """A frozen teacher and a memory of what good images are made of.

    Called with normalised images (N, 3, H, W), H and W multiples of 32, it returns the anomaly map (N, 1, H, W), the
    distances enlarged bilinearly and smoothed, and the anomaly score (N,), the weighted distance of the farthest patch.
    """

    def __init__(self, teacher: PretrainedTeacher):
        super().__init__()
        self.teacher = teacher
        self.memory = Memory(sum(teacher.plan.channels[1:]))

    @classmethod
    def of(cls, pretrained: PretrainedTeacher, recipe: Recipe) -> PatchCore:
        """A model with an empty memory."""
        return cls(pretrained)

    @property
    def pretrained(self) -> PretrainedTeacher:
        return self.teacher

    @property
    def device(self) -> torch.device:
        return self.teacher.device

    @property
    def student_parts(self) -> tuple[nn.Module, ...]:
        """None: nothing is trained."""
        return ()

    def stage_parts(self) -> dict[int, dict[str, nn.Module]]:
        """The memory alone, in the place of a student."""
        return {2: {"memory": self.memory}}

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 of 0..255, as the teacher wants them."""
        return self.teacher.normalise(images)

    def optimize_for_inference(self, dtype: torch.dtype = torch.float32) -> PatchCore:
        """Make prediction fast, for good, as AAND's does: the teacher computes in `dtype`, distances in float32.
        Returns the model itself."""
        self.eval().requires_grad_(False)
        fold_batch_norms(self.teacher.trunk, torch.zeros(1, 3, 64, 64, device=self.device))
        self.teacher.trunk.to(dtype=dtype, memory_format=torch.channels_last)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise ValueError(f"images are {tuple(images.shape[-2:])}; height and width must be multiples of 32")
        patches = embed(self.teacher(images))  # (N, C, h, w)
        distance, place = self.memory.nearest(patches)  # (N, h, w)
        anomaly_map = gaussian_smooth(sum_levels([distance], images.shape[-2:]), MAP_SIGMA)
        return anomaly_map, self.score(patches.flatten(2), distance.flatten(1), place.flatten(1))

    def score(self, patches: Tensor, distance: Tensor, place: Tensor) -> Tensor:
        """The largest distance (N, P) of patches (N, C, P) to the memory's at place (N, P), lowered where those have
        neighbours in the memory that are as near (Eq. 7): (N,)."""
        largest, position = distance.max(dim=1, keepdim=True)  # (N, 1)
        farthest = patches.gather(2, position[:, None].expand(-1, patches.shape[1], 1))[..., 0]  # (N, C)
        memory = self.memory.patches
        nearest = memory[place.gather(1, position)[:, 0]]  # (N, C)
        count = min(NEIGHBOURS, len(memory))
        around = nearness(nearest, memory).topk(count, dim=1).indices  # (N, count)
        away = squared_distances(farthest, nearness(farthest, memory).gather(1, around)).sqrt()
        weight = 1 - torch.softmax(away, dim=1)[:, 0] if count > 1 else 1
        return weight * largest[:, 0]
