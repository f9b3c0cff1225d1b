"""A trained model with all that stands before and behind it: images as a camera gives them in, maps and scores out.

    deployed = DeployedModel(model, view, size=256)        # what utils/export/formats.py writes to a file
    anomaly_map, anomaly_score = deployed(images)          # uint8 (N, H, W, 3) -> (N, 1, 256, 256), (N,)

Made of operations that ONNX and OpenVINO have: Pillow's bicubic resize becomes two products with matrices.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from datasets.view import View
from models.aand import AAND

CUBIC = -0.5  # Pillow's bicubic parameter
CUBIC_REACH = 2.0  # source pixels, times the reduction
EXAMPLE = (2, 61, 67, 3)  # shape of the images it is traced with: no two sizes alike, or they could be taken as one
LARGEST_BATCH, LARGEST_SIDE = 1024, 16384  # that a program accepts


class DeployedModel(nn.Module):
    """View, resize, normalisation, network, map and score, as test.py has them: RGB images uint8 (N, H, W, 3) of any
    height and width in, the anomaly maps float32 (N, 1, size, size) of whole images and the scores (N,) out."""

    def __init__(self, model: AAND, view: View, size: int):
        super().__init__()
        self.model, self.view, self.size = model, view, size
        self.placed = PlacedMap(view, size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = show_images(images, self.view, self.size)  # (N, 3, size, size), whole numbers of 0..255
        anomaly_map, anomaly_score = self.model(self.model.normalise(pixels))
        return self.placed(anomaly_map), anomaly_score

    def traced(self) -> torch.jit.ScriptModule:
        return torch.jit.trace(self, torch.zeros(EXAMPLE, dtype=torch.uint8), check_trace=False)

    def program(self) -> torch.export.ExportedProgram:
        """Its graph, for any number and size of images up to LARGEST_BATCH and LARGEST_SIDE."""
        batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
        height, width = (torch.export.Dim(side, min=1, max=LARGEST_SIDE) for side in ("height", "width"))
        images = torch.zeros(EXAMPLE, dtype=torch.uint8)
        return torch.export.export(self, (images,), dynamic_shapes=({0: batch, 1: height, 2: width},))


def show_images(images: Tensor, view: View, size: int) -> Tensor:
    """`View.show` for a batch: images (N, H, W, 3) to (N, 3, size, size), float32 holding whole numbers of 0..255."""
    height, width = images.shape[1:3]
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)  # (N, 3, H, W)
    columns = resize_matrix(width, view.left, view.right, size, images.device)
    rows = resize_matrix(height, view.top, view.bottom, size, images.device)
    narrow = _to_levels(pixels @ columns.T)  # (N, 3, H, size): Pillow rounds between its passes, horizontal first
    resized = _to_levels(rows @ narrow)  # (N, 3, size, size)
    if (view.black, view.white) == (0, 255):
        return resized
    return torch.round((resized - view.black) * 255 / (view.white - view.black)).clamp(0, 255)


class PlacedMap(nn.Module):
    """`View.place` for a batch: maps (N, 1, S, S) of what the view shows, as maps of the whole images."""

    def __init__(self, view: View, size: int):
        super().__init__()
        top, bottom, left, right = view.box(size)
        self.whole = (top, bottom, left, right) == (0, size, 0, size)
        self.register_buffer("rows", _area_matrix(size, top, bottom), persistent=False)
        self.register_buffer("columns", _area_matrix(size, left, right), persistent=False)
        outside = torch.ones(size, size, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        self.register_buffer("outside", outside, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        if self.whole:
            return maps
        placed = self.rows @ maps @ self.columns.T
        return torch.where(self.outside, maps.amin(dim=(2, 3), keepdim=True), placed)


def resize_matrix(length: int, start: float, end: float, size: int, device: torch.device) -> Tensor:
    """Weights (size, length) of the pixels in a row of `length` for `size` ones of its part from `start` to `end`
    (shares of it), by Pillow's bicubic filter: each row sums to 1."""
    scale = length * ((end - start) / size)  # source pixels for one of the result
    reduction = torch.clamp(torch.ones((), device=device) * scale, min=1)  # enlarged images are not blurred
    centre = (torch.arange(size, device=device) + 0.5) * scale + start * length  # (size,)
    place = torch.arange(length, device=device) + 0.5  # (length,)
    weights = _cubic((place - centre[:, None]) / reduction)
    return weights / weights.sum(dim=1, keepdim=True)


def _cubic(offset: Tensor) -> Tensor:
    x = offset.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return torch.where(x < 1, near, torch.where(x < CUBIC_REACH, far, torch.zeros_like(x)))


def _to_levels(values: Tensor) -> Tensor:
    """Round as Pillow does, halves up, to whole numbers of 0..255."""
    return torch.floor(values + 0.5).clamp(0, 255)


def _area_matrix(size: int, start: int, end: int) -> Tensor:
    """A matrix (size, size) that shrinks a row of `size` values to the places from `start` to `end`."""
    matrix = np.zeros((size, size), np.float32)
    matrix[start:end] = cv2.resize(np.eye(size, dtype=np.float32), (size, end - start), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(matrix)
