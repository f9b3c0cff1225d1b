"""Curves and pictures of a run for TensorBoard, in the folder `tensorboard` of its run: a folder for each stage of each
category, so that a stage that is resumed replaces its own last epochs and no others'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.system.errors import MissingPackage

FOLDER = "tensorboard"


def require_board() -> None:
    """Raise MissingPackage if TensorBoard's package is not there."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingPackage("`tensorboard` needs a package: pip install tensorboard") from error


class StageBoard:
    """Write the figures of a stage's epochs, from epoch `first` on, and pictures."""

    def __init__(self, run: Path, category: str, stage: int, first: int = 1):
        from torch.utils.tensorboard import SummaryWriter

        folder = run / FOLDER / category / f"stage{stage}"
        self.writer = SummaryWriter(str(folder), purge_step=first if first > 1 else None)

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def show(self, epoch: int, pictures: np.ndarray) -> None:
        """Add pictures uint8 (N, H, W, 3)."""
        self.writer.add_images("maps", pictures, epoch, dataformats="NHWC")

    def close(self) -> None:
        self.writer.close()
