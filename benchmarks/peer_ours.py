"""A method of this project for benchmarks/peers.py, trained by the stages that train.py goes through."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.peer_fits import BATCH_SIZE, Data
from benchmarks.peer_methods import OUR_EPOCHS, TRUNK, Ours
from datasets.view import WHOLE, View
from models.teacher import build_teacher
from utils.detection.model_file import Facts
from utils.detection.prediction import Prediction
from utils.export.formats import ExportSource, export
from utils.export.model import DeployedModel
from utils.system.processes import ALONE
from utils.training.category import TrainingSet, new_model
from utils.training.config import TrainConfig
from utils.training.fitting import fill_memory
from utils.training.resumable import ResumableStage
from utils.training.stages import train_stage1, train_stage2


class OurFit:
    """A `benchmarks.peer_fits.Fit`."""

    def __init__(self, method: Ours, data: Data, options: argparse.Namespace, seed: int):
        self.category = data.category
        epochs = min(OUR_EPOCHS, options.epochs or OUR_EPOCHS)
        weights = options.weights if method.backbone == TRUNK or options.weights == "random" else "bundled"
        self.config = TrainConfig(
            options.data_root, method=method.method, recipe=method.recipe, backbone=method.backbone, weights=weights,
            image_size=options.image_size, epochs_stage1=epochs, epochs_stage2=epochs, seed=seed, device="cpu",
        ).resolve(ALONE)
        traits = self.config.traits
        self.view = WHOLE
        if traits.own_view:
            self.view = View.of(data.images_and_foregrounds(WHOLE), crop=traits.crop, stretch=traits.stretch)
        images = data.images_and_foregrounds(self.view) if traits.amplified else data.images()
        self.data = TrainingSet(images, [], data.textures() if traits.amplified else None, view=self.view)
        self.test = data.test_set(self.view)

    def fit(self) -> str:
        config = self.config
        teacher = build_teacher(config.backbone, config.weights)
        config.execution.prepare_teacher(teacher)
        torch.manual_seed(config.seed)
        self.model = new_model(teacher, config)
        for number in self.model.stage_parts():
            stage = ResumableStage(number=number)
            if number == 1:
                train_stage1(self.model, self.data, config, stage)
            elif config.traits.trained:
                train_stage2(self.model, self.data, config, stage)
            else:
                fill_memory(self.model, self.data, config, stage)
        self.ready = copy.deepcopy(self.model).optimize_for_inference()
        self.deployed = DeployedModel(self.ready, self.view, config.image_size).eval()
        epochs = config.traits.epochs(config.epochs_stage1, config.epochs_stage2)
        return " + ".join(str(count) for count in epochs if count)

    def predict(self) -> Prediction:
        return self.test.predict(self.ready, BATCH_SIZE)

    def clamped(self) -> None:
        """None: what is exported gives raw maps and scores."""

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    @torch.inference_mode()
    def answer(self, images: np.ndarray) -> np.ndarray:
        return self.deployed(torch.from_numpy(images))[1].numpy()

    def export(self, folder: Path) -> Path:
        config = self.config
        facts = Facts(
            self.category, config.method, config.backbone, config.recipe, config.image_size, self.view, "fp32"
        )
        path = folder / "model.xml"
        export(ExportSource(self.model, facts), "openvino", path)
        return path
