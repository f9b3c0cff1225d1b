"""A trained model with all that stands before and behind it: images as a camera gives them in, maps and scores out.

    deployed = DeployedModel(model, view, size=256)        # what utils/export/formats.py writes to a file
    anomaly_map, anomaly_score = deployed(images)          # uint8 (N, H, W, 3) -> (N, 1, 256, 256), (N,)

Images that are shown in windows are cut into them inside, and come out as one map and one score. All is made of
operations that ONNX and OpenVINO have: Pillow's bicubic resize becomes two products with matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datasets.regions import CANVAS, canvas
from datasets.sizes import Size, height_width
from datasets.view import View
from models.aand import AAND

CUBIC = -0.5  # Pillow's bicubic parameter
CUBIC_REACH = 2.0  # source pixels, times the reduction
EXAMPLE = (2, 61, 67, 3)  # shape of the images it is traced with: no two sizes alike, or they could be taken as one
LARGEST_BATCH, LARGEST_SIDE = 1024, 16384  # that a program accepts


class DeployedModel(nn.Module):
    """View, resize, normalisation, network, map and score, as test.py has them: RGB images uint8 (N, H, W, 3) of any
    height and width in, the anomaly maps float32 (N, 1, h, w) of whole images and the scores (N,) out."""

    def __init__(self, model: AAND, view: View, size: Size):
        super().__init__()
        self.model, self.view, self.size = model, view, size
        self.placed = PlacedMap(view, size)
        if view.region:
            self.register_buffer("region", torch.from_numpy(canvas(view.region).copy()), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.view.region:
            images = cover(images, self.region, self.view.beside)
        windows = [show_images(images, self.view, self.size, number) for number in range(self.view.windows)]
        pixels = torch.stack(windows, dim=1).flatten(0, 1)  # (N * windows, 3, h, w), whole numbers of 0..255
        anomaly_map, anomaly_score = self.model(self.model.normalise(pixels))
        return self.placed(anomaly_map), anomaly_score.unflatten(0, (-1, self.view.windows)).amax(dim=1)

    def traced(self) -> torch.jit.ScriptModule:
        return torch.jit.trace(self, torch.zeros(EXAMPLE, dtype=torch.uint8), check_trace=False)

    def program(self) -> torch.export.ExportedProgram:
        """Its graph, for any number and size of images up to LARGEST_BATCH and LARGEST_SIDE."""
        batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
        height, width = (torch.export.Dim(side, min=1, max=LARGEST_SIDE) for side in ("height", "width"))
        images = torch.zeros(EXAMPLE, dtype=torch.uint8)
        return torch.export.export(self, (images,), dynamic_shapes=({0: batch, 1: height, 2: width},))


def show_images(images: Tensor, view: View, size: Size, window: int = 0) -> Tensor:
    """`View.show` for a batch, but for a region of interest: images (N, H, W, 3) to (N, 3, h, w), float32 holding whole
    numbers of 0..255."""
    height, width = images.shape[1:3]
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)  # (N, 3, H, W)
    (top, bottom, left, right), (high, wide) = view.window_box(window), height_width(size)
    columns = resize_matrix(width, left, right, wide, images.device)
    rows = resize_matrix(height, top, bottom, high, images.device)
    narrow = _to_levels(pixels @ columns.T)  # (N, 3, H, w): Pillow rounds between its passes, horizontal first
    resized = _to_levels(rows @ narrow)  # (N, 3, h, w)
    if (view.black, view.white) == (0, 255):
        return resized
    return torch.round((resized - view.black) * 255 / (view.white - view.black)).clamp(0, 255)


def cover(images: Tensor, region: Tensor, beside: int) -> Tensor:
    """Images uint8 (N, H, W, 3) with one grey level in the place of what is beside a region, given as the canvas of
    datasets/regions.py."""
    rows, columns = (
        (2 * torch.arange(side, device=images.device) + 1) * CANVAS // (2 * side) for side in images.shape[1:3]
    )
    inside = region.index_select(0, rows).index_select(1, columns)[..., None]  # (H, W, 1)
    return torch.where(inside, images, torch.full((), beside, dtype=torch.uint8, device=images.device))


class PlacedMap(nn.Module):
    """`View.place` for a batch: maps (N * windows, 1, h, w) of what the view shows, as maps (N, 1, H, W) of the whole
    images."""

    def __init__(self, view: View, size: Size):
        super().__init__()
        rows, columns = map(torch.tensor, view.joining(size))
        shown = torch.from_numpy(view.shown_in(view.map_size(size)))
        self.grid, self.whole = (view.rows, view.columns), view.windows == 1 and bool(shown.all())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("shown", shown, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        if self.whole:
            return maps
        grid = maps.unflatten(0, (-1, *self.grid))[:, :, :, 0]  # (N, rows, columns, h, w)
        joined = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, None]  # (N, 1, rows * h, columns * w)
        placed = self.rows @ joined @ self.columns.T
        return torch.where(self.shown, placed, joined.amin(dim=(2, 3), keepdim=True))


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

