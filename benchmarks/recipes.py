"""What each part of the robust recipe is worth, measured without a test image: synthetic anomalies of kinds that no
training uses, on good images held out.

    python benchmarks/recipes.py --data_root data/mvtec3d --category tire --aux_path data/dtd/images \\
        --backbone efficientnet_lite0 --weights bundled --seeds 0 1 2
    python benchmarks/recipes.py ... --only rd4ad published robust     # some of the rows

A fifth of the training images is held out, for every seed the same; the anomalies are painted on them whole, at one and
a half times the model's size, before anything is cropped or stretched. Each row gives the last epoch: mean and standard
deviation over the seeds of I-AUROC, P-AUROC and PRO, the swing (highest less lowest I-AUROC over the last fifth of the
epochs), seconds of training, and milliseconds that a decoded image takes to be shown, scored and mapped (the fastest of
five passes over 64 images).
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks.unseen_anomalies import SMALL, Sort, make_unseen_anomalies
from datasets import open_dataset
from datasets.anomalies.textures import find_aux_path, list_textures
from datasets.base import DataError, Sample
from datasets.batches import hold_out
from datasets.files import Files, paths_of, texture_files, training_files
from datasets.view import WHOLE, View
from models.aand import AAND, build_model
from models.recipes import BASELINE, PATCHCORE, PUBLISHED, ROBUST, Recipe
from models.teacher import build_teacher
from utils.cli import (
    at_least,
    image_size,
    run_command,
    user_path,
)
from utils.data.image_store import FileStack, Stack
from utils.detection.test_set import TestSet
from utils.metrics.tables import Statistic
from utils.system.device import pick_device, resolve_precision
from utils.system.environment import environment
from utils.system.memory import keep_freed_memory
from utils.training.category import TrainingSet
from utils.training.config import TrainConfig
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.fitting import fill_memory, standardise
from utils.training.resumable import ResumableStage
from utils.training.stages import train_stage1, train_stage2

HOLDOUT = 0.2
VALIDATION_SEED = 0  # the same anomalies for every seed of training
FINER = 1.5  # how much larger than the model's images are those that anomalies are painted on
LAST_FIFTH = 0.8  # share of the epochs before it
BATCH_SIZE, LR, WORKERS = 16, 0.005, 2  # the first two as train.py has them
TIMED_IMAGES, TIMED_PASSES = 64, 5
RATED_BY = {"image_auroc": "I-AUROC", "pixel_auroc": "P-AUROC", "aupro": "PRO"}
ROWS: dict[str, Recipe] = {
    "rd4ad": BASELINE,
    "published": PUBLISHED,
    "published, cropped": replace(PUBLISHED, crop=True),
    "published, stretched": replace(PUBLISHED, stretch=True),
    "published, standardised": replace(PUBLISHED, standardised=True),
    "patchcore": PATCHCORE,
    "robust": ROBUST,
    "robust, not cropped": replace(ROBUST, crop=False),
    "robust, not stretched": replace(ROBUST, stretch=False),
    "robust, not standardised": replace(ROBUST, standardised=False, memory=False),
    "robust, no memory": replace(ROBUST, memory=False),
    "robust, no heads": replace(ROBUST, heads=False),
    "robust, no hard positions": replace(ROBUST, hard_positions=False),
}


@dataclass(frozen=True)
class RecipeConfig(TrainConfig):
    """Settings with a recipe that no method has."""

    chosen: Recipe = PUBLISHED

    @property
    def traits(self) -> Recipe:
        return self.chosen


class Outcome(NamedTuple):
    """One row with one seed."""

    metrics: dict[str, float]
    swing: float  # of image AUROC
    seconds: float  # of training
    inference: float  # seconds an image


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the category")
    add("--category", required=True, metavar="NAME", help="what is trained")
    add("--aux_path", metavar="DTD_IMAGES", help="textures, or 'builtin' (default: DTD beside the data set)")
    add("--backbone", default="efficientnet_lite0", metavar="NAME", help="teacher (default efficientnet_lite0)")
    add("--weights", default="bundled", metavar="W", help="as of train.py (default bundled)")
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    add("--epochs", type=at_least(1), default=20, metavar="N", help="of each stage (default 20)")
    add("--seeds", type=at_least(0), nargs="+", default=[0], metavar="N", help="default 0")
    add("--only", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS), help=f"of: {'; '.join(ROWS)}")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    return parser.parse_args()


class Category:
    """A category's good images: those to train on as any view shows them, and the validation on the others."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        self.options, self.device = options, device
        self.execution = Execution(resolve_precision("auto", device))
        self.source = open_dataset(options.data_root, "auto", [options.category])
        self.samples, held_out = hold_out(self.source.samples(options.category, "train"), HOLDOUT)
        textures = texture_files(list_textures(options.aux_path or str(find_aux_path(options.data_root))))
        self.textures = FileStack(textures, options.image_size, WORKERS)[:]
        finer = round(FINER * options.image_size)
        files = self._files(held_out, WHOLE), textures
        self.held_out = tuple(FileStack(part, finer, WORKERS)[:] for part in files)  # images, textures
        self.validation = synthetic_test_set(*self.held_out)
        self.whole = self.images(WHOLE)
        self.amplifications: dict[tuple[View, int], dict[str, Tensor]] = {}  # of Stage I, by view and seed

    def images(self, view: View) -> Tensor:
        """The training images and their foregrounds, uint8 (N, S, S, 4)."""
        return FileStack(self._files(self.samples, view), self.options.image_size, WORKERS)[:]

    def validation_of(self, view: View, painted: TestSet | None = None) -> TestSet:
        """What the view shows of the validation images, or of others; masks whole, at the model's size."""
        painted = painted or self.validation
        masks = np.stack([WHOLE.show_mask(mask, self.options.image_size) for mask in painted.masks])
        return TestSet(self._shown(painted.images, view), painted.labels, masks, view)

    def inference_seconds(self, model: AAND, view: View) -> float:
        """What one image takes, from decoded pixels to the map of the whole image."""
        images = self.validation.images[:TIMED_IMAGES]
        passes = []
        for _ in range(TIMED_PASSES):
            started = time.perf_counter()
            shown = TestSet(self._shown(images, view), self.validation.labels[: len(images)], None, view)
            shown.predict(model, BATCH_SIZE)
            passes.append(time.perf_counter() - started)
        return min(passes) / len(images)

    def untrained(self, recipe: Recipe, seed: int) -> AAND:
        teacher = build_teacher(self.options.backbone, self.options.weights).to(self.device)
        self.execution.prepare_teacher(teacher)
        torch.manual_seed(seed)
        model = build_model(teacher, recipe).to(self.device)
        self.execution.prepare(model)
        return model

    def train(self, recipe: Recipe, seed: int) -> Outcome:
        """Both stages, the first only where no row before had the same one."""
        options, execution = self.options, self.execution
        view = View.of(self.whole, crop=recipe.crop, stretch=recipe.stretch)
        images, validation, model = self.images(view), self.validation_of(view), self.untrained(recipe, seed)
        started = time.perf_counter()
        if recipe.amplified:
            self.amplify(model, images, view, self.config(recipe, seed))
        features = TeacherFeatures(model, images[..., :3], batch_size=BATCH_SIZE, seed=seed, execution=execution)
        if recipe.standardised:
            features.keep("auto", "ram", Path())
        metrics: dict[int, dict[str, float]] = {}
        rating = 0.0  # seconds

        def log(epoch: int, figures: dict[str, float]) -> None:
            nonlocal rating
            if epoch > LAST_FIFTH * options.epochs:
                before = time.perf_counter()
                if recipe.standardised:
                    standardise(model, features, execution)
                metrics[epoch] = validation.evaluate(validation.predict(model, BATCH_SIZE))
                rating += time.perf_counter() - before

        stage = ResumableStage()
        stage.log = log
        if recipe.trained:
            train_stage2(model, TrainingSet(images[..., :3], []), self.config(recipe, seed), stage)
        else:
            stage.log = lambda epoch, figures: log(options.epochs, figures)
            fill_memory(model, TrainingSet(images[..., :3], []), self.config(recipe, seed), stage)
        aurocs = [figures["image_auroc"] for figures in metrics.values()]
        seconds = time.perf_counter() - started - rating
        inference = self.inference_seconds(model, view)
        return Outcome(metrics[options.epochs], max(aurocs) - min(aurocs), seconds, inference)

    def config(self, recipe: Recipe, seed: int) -> RecipeConfig:
        """The settings of a row with one seed."""
        epochs = self.options.epochs
        return RecipeConfig(
            Path(), batch_size=BATCH_SIZE, epochs_stage1=epochs, epochs_stage2=epochs, lr=LR, seed=seed,
            precision=self.execution.precision, chosen=recipe,
        )

    def amplify(self, model: AAND, images: Tensor, view: View, config: RecipeConfig) -> None:
        """Stage I, or what it was for a row before."""
        amplification, key = model.teacher.amplification, (view, config.seed)
        if key in self.amplifications:
            amplification.load_state_dict(self.amplifications[key])
            return
        train_stage1(model, TrainingSet(images, [], self.textures), config, ResumableStage())
        self.amplifications[key] = copy.deepcopy(amplification.state_dict())

    def _shown(self, images: Tensor, view: View) -> Tensor:
        return torch.from_numpy(np.stack([view.show(image.numpy(), self.options.image_size) for image in images]))

    def _files(self, samples: list[Sample], view: View) -> Files:
        return training_files(paths_of(samples), self.source.name, self.options.category, None, view)


def synthetic_test_set(held_out: Stack, textures: Stack, sort: Sort = SMALL) -> TestSet:
    """Held-out good images and anomalies of every unseen kind of a sort on each of them.

    held_out: uint8 (N, S, S, 4), RGB and foreground of 0 and 1; textures: uint8 (T, 3, S, S). Raises DataError if no
    anomaly can be seen.
    """
    content: Tensor = held_out[:]
    images, foregrounds = content[..., :3].numpy(), content[..., 3].numpy()
    anomalies, found, _ = make_unseen_anomalies(images, foregrounds, textures, VALIDATION_SEED, sort)
    if len(anomalies) == 0:
        raise DataError("no synthetic anomaly can be seen on the images held out")
    labels = np.repeat([0, 1], [len(images), len(anomalies)])
    masks = np.concatenate([np.zeros_like(foregrounds), found])
    return TestSet(torch.from_numpy(np.concatenate([images, anomalies])), labels, masks)


def main() -> None:
    options = parse_args()
    keep_freed_memory()
    category = Category(options, pick_device(options.device))
    seeds = " ".join(map(str, options.seeds))
    print(f"{options.category}, {options.backbone}, {options.image_size} px, {options.epochs} + {options.epochs} "
          f"epochs, seeds {seeds}, {len(category.validation.labels)} validation images")
    print(", ".join(f"{name} {value}" for name, value in environment().items()))
    print(f"| | {' | '.join(RATED_BY.values())} | swing | training, s | inference, ms an image |\n|{7 * '---|'}")
    for name in options.only:
        outcomes = [category.train(ROWS[name], seed) for seed in options.seeds]
        figures = [
            *(Statistic.over([o.metrics[metric] for o in outcomes]).percent() for metric in RATED_BY),
            f"{100 * fmean(o.swing for o in outcomes):.2f}",
            f"{fmean(o.seconds for o in outcomes):.0f}",
            f"{1000 * min(o.inference for o in outcomes):.1f}",
        ]
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    run_command(main)
