"""How the distances of student and memory are joined in the robust recipe: other values of the constants in
models/memory.py, measured without a test image.

    python benchmarks/memory_choices.py data/mvtec3d/tire data/mvtec/pill --aux_path data/dtd/images

Each category is trained once, then standardised and rated with each choice, on the same held-out images with anomalies
of unseen kinds as in benchmarks/recipes.py, on large ones of the same kinds, and on obvious ones. I-AUROC / P-AUROC /
PRO, percent, of each category and their mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.recipes import BATCH_SIZE, RATED_BY, Category, synthetic_test_set
from benchmarks.unseen_anomalies import LARGE, OBVIOUS
from datasets.view import View
from models import memory
from models.recipes import ROBUST
from utils.cli import at_least, image_size, run_command, user_path
from utils.system.device import pick_device
from utils.system.environment import environment
from utils.system.memory import keep_freed_memory
from utils.training.category import TrainingSet
from utils.training.features import TeacherFeatures
from utils.training.fitting import standardise
from utils.training.resumable import ResumableStage
from utils.training.stages import train_stage2

NONE = 1e9  # deviations: a limit that nothing reaches
CHOICES: dict[str, dict[str, float]] = {  # of the constants
    "as it is": {},
    "memory as 1 level": {"WEIGHT": 1},
    "memory as 2 levels": {"WEIGHT": 2},
    "memory as 4 levels": {"WEIGHT": 4},
    "memory as 8 levels": {"WEIGHT": 8},
    "limit of 1 deviation": {"LIMIT": 1},
    "limit of 6 deviations": {"LIMIT": 6},
    "no limit": {"LIMIT": NONE},
    "nothing of the standing": {"STANDING": 0},
    "all of the standing": {"STANDING": 1},
    "a prior of 8 positions": {"PRIOR": 8},
}
SMALL = "small"  # anomalies, those of benchmarks/recipes.py
OTHERS = {"large": LARGE, "obvious": OBVIOUS}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("categories", type=user_path, nargs="+", metavar="DATA/CATEGORY", help="folders of categories")
    add("--aux_path", metavar="DTD_IMAGES", help="textures, or 'builtin' (default: DTD beside the data set)")
    add("--backbone", default="efficientnet_lite0", metavar="NAME", help="teacher (default efficientnet_lite0)")
    add("--weights", default="bundled", metavar="W", help="as of train.py (default bundled)")
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    add("--epochs", type=at_least(1), default=20, metavar="N", help="of each stage (default 20)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="default 0")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    return parser.parse_args()


def rate(category: Category, seed: int) -> Iterator[tuple[str, str, list[float]]]:
    """Sorts of anomalies, choices, and the figures of each."""
    config = category.config(ROBUST, seed)
    view = View.of(category.whole, crop=ROBUST.crop, stretch=ROBUST.stretch)
    images, model = category.images(view), category.untrained(ROBUST, seed)
    category.amplify(model, images, view, config)
    train_stage2(model, TrainingSet(images[..., :3], []), config, ResumableStage())
    features = TeacherFeatures(model, images[..., :3], batch_size=BATCH_SIZE, seed=seed, execution=category.execution)
    features.keep("auto", "ram", Path())
    painted = {SMALL: category.validation}
    painted |= {name: synthetic_test_set(*category.held_out, sort) for name, sort in OTHERS.items()}
    test_sets = {name: category.validation_of(view, test_set) for name, test_set in painted.items()}
    usual = {name: getattr(memory, name) for choice in CHOICES.values() for name in choice}
    for choice, constants in CHOICES.items():
        for name, value in (usual | constants).items():
            setattr(memory, name, value)
        model.memory.weights[-1] = memory.WEIGHT
        model.memory.limit.fill_(memory.LIMIT)
        standardise(model, features, category.execution)
        for sort, test_set in test_sets.items():
            metrics = test_set.evaluate(test_set.predict(model, BATCH_SIZE))
            yield sort, choice, [100 * metrics[name] for name in RATED_BY]
    for name, value in usual.items():
        setattr(memory, name, value)


def main() -> None:
    options = parse_args()
    keep_freed_memory()
    names = [path.name for path in options.categories]
    found: dict[tuple[str, str], list[list[float]]] = {}
    for path in options.categories:
        settings = argparse.Namespace(**vars(options), data_root=path.parent, category=path.name)
        for sort, choice, figures in rate(Category(settings, pick_device(options.device)), options.seed):
            found.setdefault((sort, choice), []).append(figures)
    epochs = f"{options.epochs} + {options.epochs} epochs"
    print(f"{options.backbone}, {options.image_size} px, {epochs}, seed {options.seed}")
    print(", ".join(f"{name} {value}" for name, value in environment().items()))
    print(f"| anomalies | | mean | {' | '.join(names)} |\n|{'---|' * (3 + len(names))}")
    for sort in (SMALL, *OTHERS):
        for choice in CHOICES:
            rows = found[sort, choice]
            cells = [" / ".join(f"{figure:.1f}" for figure in row) for row in [np.mean(rows, axis=0), *rows]]
            print(f"| {sort} | {choice} | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_command(main)
