"""Pictures of what Stage I does to synthetic anomalies, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.anomalies.synthesis import draw_anomalies, synthesise_anomalies
from datasets.batches import epoch_seed
from models.aand import AAND
from models.similarity import compare_features
from utils.drawing.heat_maps import color_table, draw_outline


@dataclass(frozen=True)
class Stage1Picture:
    """A synthetic anomaly as the teacher sees it. Similarities are means over the three levels, in 0..1."""

    image: np.ndarray  # uint8 (S, S, 3)
    mask: np.ndarray  # uint8 (S, S)
    gates: list[np.ndarray]  # three (S, S) in 0..1: how anomalous each level's gate holds each position
    before: np.ndarray  # (S, S): similarity of the teacher's features to those of the same image without the anomaly
    after: np.ndarray  # (S, S): the same with the amplified features of the anomaly


@torch.inference_mode()
def picture_stage1(
    model: AAND, images: Tensor, foregrounds: Tensor, textures: Tensor, seed: int
) -> list[Stage1Picture]:
    """Put a synthetic anomaly on each image, and compare what the model makes of both.

    images: uint8 (N, S, S, 3); foregrounds: uint8 (N, S, S) of 0 and 1; textures: uint8 (T, 3, S, S).
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, 0))  # epoch 0: drawn in no epoch of the training
    pictures = []
    for image, foreground in zip(images.permute(0, 3, 1, 2).contiguous().split(1), foregrounds.split(1), strict=True):
        while True:  # one image in five stays clean
            anomaly, mask = synthesise_anomalies(image, foreground, textures, draw_anomalies(1, generator))
            if mask.any() or not foreground.any():
                break
        features = model.teacher.pretrained(model.normalise(torch.cat([image, anomaly])))
        clean, anomalous = ([level[index : index + 1] for level in features] for index in (0, 1))
        outputs = model.teacher.amplify(anomalous)
        size = image.shape[-2:]
        pictures.append(
            Stage1Picture(
                image=anomaly[0].permute(1, 2, 0).contiguous().numpy(),
                mask=mask[0, 0].numpy(),
                gates=[_enlarge(output.gate, size) for output in outputs],
                before=_similarity(clean, anomalous, size),
                after=_similarity(clean, [output.amplified for output in outputs], size),
            )
        )
    return pictures


def stage1_images(picture: Stage1Picture) -> list[np.ndarray]:
    """The pictures in a row, each uint8 (S, S, 3) with the true anomaly outlined: image, three gates, before, after."""
    values = np.stack([*picture.gates, picture.before, picture.after])  # (5, S, S)
    maps = color_table()[np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)]  # (5, S, S, 3)
    return [draw_outline(image, picture.mask) for image in (picture.image, *maps)]


def _similarity(first: list[Tensor], second: list[Tensor], size: tuple[int, int]) -> np.ndarray:
    pairs = zip(first, second, strict=True)
    levels = [1 - compare_features(a, b).distance()[:, None] for a, b in pairs]  # (1, 1, H, W) each
    return np.mean([_enlarge(level, size) for level in levels], axis=0)


def _enlarge(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(1, 1, H, W) enlarged bilinearly, as anomaly maps are."""
    enlarged = torch.nn.functional.interpolate(values.float(), size, mode="bilinear", align_corners=True)
    return enlarged[0, 0].cpu().numpy()
