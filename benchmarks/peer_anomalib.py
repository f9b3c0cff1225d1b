"""A method of anomalib for benchmarks/peers.py: fitted and exported by its Engine, on images in memory.

Raw maps and scores are those of the method's torch model, which come before the post-processor: that one normalises by
limits of a validation set and clamps to 0..1, so that values beyond them become equal.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import timm
import torch
from anomalib import models
from anomalib.callbacks import ModelCheckpoint
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.deploy import ExportType
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.tv_tensors import Image, Mask

from benchmarks.peer_fits import BATCH_SIZE, Data
from benchmarks.peer_methods import TRUNK, Peer
from models import WeightsError
from models.teacher import find_weights
from utils.detection.prediction import Prediction
from utils.detection.test_set import TestSet


class Items(Dataset):
    """Decoded images uint8 (N, S, S, 3) as anomalib's data sets give those of files: RGB in 0..1, with mask and label.

    labels: (N,) of 0 and 1; masks: uint8 (N, S, S) of 0 and 1; by default all are good.
    """

    def __init__(self, images: Tensor, labels: np.ndarray | None = None, masks: np.ndarray | None = None):
        self.images = images
        self.labels = np.zeros(len(images), int) if labels is None else labels
        self.masks = np.zeros(images.shape[:3], np.uint8) if masks is None else masks

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> ImageItem:
        return ImageItem(
            image=Image(to_floats(self.images[place])), gt_label=torch.tensor(self.labels[place]),
            gt_mask=Mask(torch.from_numpy(self.masks[place])),
        )

    def batches(self, batch_size: int, shuffle: bool = False) -> DataLoader:
        """Loads them as anomalib's data modules do, but in this process: nothing is decoded any more."""
        return DataLoader(self, batch_size, shuffle=shuffle, collate_fn=ImageBatch.collate)


class PeerFit:
    """A `benchmarks.peer_fits.Fit`."""

    def __init__(self, method: Peer, data: Data, options: argparse.Namespace, seed: int):
        self.method, self.seed, self.size, self.weights = method, seed, options.image_size, options.weights
        self.epochs = min(method.epochs or 1, options.epochs or method.epochs or 1)
        self.options = {**method.options, "dtd_dir": options.aux_path} if method.textures else method.options
        self.images, self.test = data.images(), data.test_set()

    def fit(self) -> str:
        seed_everything(self.seed, verbose=False)
        kind = getattr(models, self.method.model)
        with trunk_weights(self.weights), tempfile.TemporaryDirectory() as folder:
            size = kind.configure_pre_processor(image_size=(self.size, self.size))
            self.model = kind(pre_processor=size, evaluator=False, visualizer=False, **self.options)
            self.engine = Engine(
                callbacks=[ModelCheckpoint(save_top_k=0)], default_root_dir=folder, accelerator="cpu", devices=1,
                max_epochs=self.epochs, enable_progress_bar=False, enable_model_summary=False,
            )
            self.engine.fit(self.model, Items(self.images).batches(self.method.batch_size, shuffle=True))
        self.model.eval()
        whole = self.method.epochs or 1
        return str(whole) if self.epochs == whole else f"{self.epochs} of {whole}"

    def predict(self) -> Prediction:
        return predict(lambda images: self.model.model(self.model.pre_processor(images)), self.test)

    def clamped(self) -> Prediction:
        """After the post-processor, with limits of the test set."""
        self.engine.validate(self.model, Items(self.test.images, self.test.labels, self.test.masks).batches(BATCH_SIZE))
        return predict(self.model.eval(), self.test)

    def state(self) -> Mapping[str, Tensor]:
        return self.model.model.state_dict()

    @torch.inference_mode()
    def answer(self, images: np.ndarray) -> np.ndarray:
        return self.model(to_floats(torch.from_numpy(images))).pred_score.reshape(-1).numpy()

    def export(self, folder: Path) -> Path:
        return self.engine.export(self.model, ExportType.OPENVINO, folder, input_size=(self.size, self.size))


@torch.inference_mode()
def predict(model: Callable[[Tensor], InferenceBatch], test: TestSet) -> Prediction:
    """Maps float32 (N, S, S) and scores (N,) of a test set's images."""
    answers = [model(to_floats(batch)) for batch in test.images.split(BATCH_SIZE)]
    maps = torch.cat([answer.anomaly_map for answer in answers])
    scores = torch.cat([answer.pred_score.reshape(-1) for answer in answers])
    return Prediction(maps.reshape(len(scores), *maps.shape[-2:]).float().numpy(), scores.numpy())


def to_floats(images: Tensor) -> Tensor:
    """Images uint8 (..., S, S, 3) as anomalib takes them, float32 (..., 3, S, S) in 0..1."""
    return images.movedim(-1, -3).float().contiguous() / 255


@contextmanager
def trunk_weights(weights: str) -> Iterator[None]:
    """Let timm give every ResNet-18 that is asked for as pretrained the weights of a file, or random ones, and refuse
    any other pretrained model: nothing is downloaded. Raises WeightsError for weights that do not fit."""
    create = timm.create_model
    state = None if weights == "random" else find_weights(TRUNK, weights)

    def create_model(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        model = create(name, pretrained=False, **options)
        if pretrained and name.partition(".")[0] != TRUNK:
            raise WeightsError(f"{name} would be downloaded; only {TRUNK} has `weights`")
        if pretrained and state and (missing := model.load_state_dict(state, strict=False).missing_keys):
            raise WeightsError(f"`weights` {weights}: {len(missing)} of {name} are missing, e.g. {missing[0]}")
        return model

    with patch.object(timm, "create_model", create_model):
        yield
