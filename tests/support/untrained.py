"""Run folders with random weights, for tests that need a model and no training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from datasets.view import View
from models.aand import AAND, build_model
from models.memory import LocalStandardisation, Memory
from models.recipes import METHODS
from models.teacher import build_teacher
from tests.support.trees import good_image
from utils.runs.checkpoint import save_checkpoint
from utils.runs.folder import Run
from utils.runs.settings import CONFIG

CROPPED = View(top=0.1, bottom=0.93, left=0.2137, right=0.81, black=12, white=201)


def make_run(run: Path, method: str = "aand", recipe: str = "published", data_root: str = "data", size: int = 32,
             category: str = "bottle") -> Path:
    """A run folder as train.py leaves it; of the robust recipe with the view CROPPED and a calibration."""
    settings = {
        "method": method, "backbone": "efficientnet_lite0", "image_size": size, "dataset": "folder",
        "data_root": data_root, "command": "train.py", "started": "2024-01-01T00:00:00", "recipe": recipe,
    }
    torch.manual_seed(0)
    model = build_model(build_teacher("efficientnet_lite0", "random"), METHODS[method][recipe])
    _fill(model)
    run.mkdir(parents=True)
    (run / CONFIG).write_text(json.dumps(settings))
    save_checkpoint(Run(run).teacher, {"trunk": model.pretrained.trunk}, settings, 0.0)
    for stage, parts in model.stage_parts().items():
        save_checkpoint(Run(run).category(category).stage(stage), parts, settings, 0.0, category)
    if recipe == "robust":
        Run(run).category(category).view_file.write_text(json.dumps(asdict(CROPPED)))
    return run


def photographs(count: int = 3, height: int = 45, width: int = 70) -> np.ndarray:
    """Good images uint8 (N, H, W, 3), no two alike."""
    rng = np.random.default_rng(5)
    return np.stack([good_image(rng, max(height, width))[:height, :width] for _ in range(count)])


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    """Numbers in place of the zeros and ones that would hide what is left out."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.bias.normal_(0, 0.1)
        if isinstance(part, Memory):
            part.patches = torch.randn(20, part.patches.shape[1])
        if isinstance(part, LocalStandardisation):
            part.origin = torch.randn(20, part.origin.shape[1])
            part.deviation = 0.5 + torch.rand(20, part.origin.shape[1])
            part.images = torch.arange(20)
    if isinstance(model, AAND) and model.standardisation:
        for offset in model.standardisation.offsets:
            offset.normal_(0, 0.02)
        model.standardisation.set_scale(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.7, 0.9]))
