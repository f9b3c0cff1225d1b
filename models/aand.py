"""AAND whole: teacher, one-class bottleneck, reverse decoder; where teacher and student disagree is the anomaly map."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.amplification import AmplifiedTeacher
from models.folding import fold_batch_norms
from models.memory import LocalStandardisation, embed
from models.recipes import PUBLISHED, Recipe
from models.similarity import compare_features
from models.standardisation import Standardisation
from models.student import LinearHeads, OneClassBottleneck, ReverseDecoder
from models.teacher import PretrainedTeacher

LATER_PARTS = {"heads": "heads", "usual": "memory"}  # of robust models, by their names in files; earlier ones lack them
MAP_SIGMA = 4.0  # pixels


class AAND(nn.Module):
    """A teacher (amplified: AAND; plain: reverse distillation) with its student.

    Called with normalised images (N, 3, H, W), H and W multiples of 32, it returns the anomaly map (N, 1, H, W), each
    pixel in 0..6 (standardised: around 0 on good images; with a memory: 0 or more), and the anomaly score (N,), the
    map's maximum.
    """

    def __init__(self, teacher: AmplifiedTeacher | PretrainedTeacher, recipe: Recipe = PUBLISHED):
        super().__init__()
        self.teacher = teacher
        plan = self.pretrained.plan
        self.bottleneck = OneClassBottleneck(plan)
        self.decoder = ReverseDecoder(plan)
        self.heads = LinearHeads(plan) if recipe.heads and plan.signed else None
        self.standardisation = Standardisation(plan.channels) if recipe.standardised else None
        self.memory = LocalStandardisation(sum(plan.channels[1:]), len(plan.channels)) if recipe.memory else None

    @classmethod
    def of(cls, pretrained: PretrainedTeacher, recipe: Recipe) -> AAND:
        """An untrained model of a recipe."""
        return cls(AmplifiedTeacher(pretrained) if recipe.amplified else pretrained, recipe)

    @property
    def pretrained(self) -> PretrainedTeacher:
        return self.teacher.pretrained if isinstance(self.teacher, AmplifiedTeacher) else self.teacher

    @property
    def device(self) -> torch.device:
        return self.pretrained.device

    @property
    def student_parts(self) -> tuple[nn.Module, ...]:
        """What Stage II trains."""
        parts = self.bottleneck, self.decoder
        return parts if self.heads is None else (*parts, self.heads)

    def stage_parts(self) -> dict[int, dict[str, nn.Module]]:
        """The parts that each stage trains and its checkpoint holds; plain reverse distillation has no Stage I."""
        named = {  # as in files
            "bottleneck": self.bottleneck, "decoder": self.decoder, "heads": self.heads,
            "calibration": self.standardisation, "usual": self.memory,
        }
        parts = {name: part for name, part in named.items() if part is not None}
        first = {1: {"amplification": self.teacher.amplification}} if isinstance(self.teacher, AmplifiedTeacher) else {}
        return {**first, 2: parts}

    def do_without(self, lacking: Iterable[str]) -> None:
        """Drop those of the later parts, by their names in files, that the files of this model lack."""
        for name in lacking:
            setattr(self, LATER_PARTS[name], None)

    def normalise(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), uint8 of 0..255, as the teacher wants them."""
        return self.pretrained.normalise(images)

    def student(self, teacher_features: list[Tensor]) -> list[Tensor]:
        """The student's features S_l, of the teacher features' shapes."""
        rebuilt = self.decoder(self.bottleneck(teacher_features))
        return rebuilt if self.heads is None else self.heads(rebuilt)

    def optimize_for_inference(self, dtype: torch.dtype = torch.float32) -> AAND:
        """Make prediction fast, for good: batch norms folded into their convolutions, weights channels last in `dtype`.

        Anomaly maps stay float32. In float32 scores change by rounding alone, below 1e-4 of their value; in bfloat16 by
        a few percent, so a threshold must be set with the model as it is used. Training on is no longer possible.
        Returns the model itself.
        """
        self.eval().requires_grad_(False)
        example = torch.zeros(1, 3, 64, 64, device=self.device)
        fold_batch_norms(self, example)
        parts = [self.pretrained.trunk, *self.student_parts]
        if isinstance(self.teacher, AmplifiedTeacher):
            parts.append(self.teacher.amplification)
        for part in parts:  # the rest, mean and deviation of the images, stays float32
            part.to(dtype=dtype, memory_format=torch.channels_last)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[-1] % 32 or images.shape[-2] % 32:
            raise ValueError(f"images are {tuple(images.shape[-2:])}; height and width must be multiples of 32")
        teacher_features = self.teacher(images)
        student_features = self.student(teacher_features)
        if self.standardisation is None:
            distances = discrepancies(teacher_features, student_features)
        else:
            distances = self.standardisation(teacher_features, student_features)
        if self.memory:  # one that is filled
            distances = self.memory(embed(teacher_features), distances)
        anomaly_map = gaussian_smooth(sum_levels(distances, images.shape[-2:]), MAP_SIGMA)
        return anomaly_map, anomaly_map.amax(dim=(1, 2, 3))


def build_model(pretrained: PretrainedTeacher, recipe: Recipe = PUBLISHED) -> AAND:
    """An untrained model of the class that the recipe names."""
    module, _, name = recipe.model.rpartition(".")
    return getattr(import_module(f".{module}", __package__), name).of(pretrained, recipe)


def discrepancies(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """1 - cosine similarity of each level, (N, H_l, W_l)."""
    return [compare_features(a, b).distance() for a, b in zip(first, second, strict=True)]


def sum_levels(distances: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum of maps (N, H_l, W_l), each enlarged bilinearly (align_corners) to `size`: (N, 1, H, W)."""
    levels = [F.interpolate(d[:, None], size, mode="bilinear", align_corners=True) for d in distances]
    return torch.stack(levels).sum(dim=0)


def gaussian_smooth(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """scipy.ndimage.gaussian_filter's definition (mode "reflect") as two separable convolutions over (N, 1, H, W).

    Raises ValueError if the maps are smaller than the kernel's radius, truncate * sigma.
    """
    radius = int(truncate * sigma + 0.5)
    if min(maps.shape[-2:]) < radius:
        raise ValueError(f"maps of {tuple(maps.shape[-2:])} are smaller than the Gaussian's radius of {radius}")
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.cat([maps[..., :radius].flip(-1), maps, maps[..., -radius:].flip(-1)], dim=-1)
    maps = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    padded = torch.cat([maps[..., :radius, :].flip(-2), maps, maps[..., -radius:, :].flip(-2)], dim=-2)
    return F.conv2d(padded, kernel.view(1, 1, -1, 1))
