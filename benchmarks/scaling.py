"""Seconds of an epoch of both stages over the number of training images, the image size and the batch size, by part.

    python benchmarks/scaling.py --plot docs/scaling.svg              # two teachers, a few minutes on two cores
    python benchmarks/scaling.py --backbones wide_resnet50_2 --image_size 128

An epoch is not run whole: its time is that of the median of a few steps, times the number of steps in it, a last
partial batch counted as its share. Steps are the trainer's own, with random weights, on as many generated images in
memory as the epoch has; those of all settings are taken in turns.

Parts: "data" makes the batch (Stage I: synthesis, Stage II: fetching the kept features), "teacher" is the frozen trunk,
"forward" the amplification or the student, with the losses, and "backward" the gradients and the optimiser. Stage II
needs the teacher, amplified, before its first epoch only: the last column.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks.steps import Trainer, make_images, median
from datasets.batches import SyntheticAnomalies
from models import BACKBONES
from utils.cli import at_least, image_size, user_path
from utils.system.device import pick_device, resolve_precision
from utils.system.environment import environment
from utils.system.memory import keep_freed_memory
from utils.training.execution import Execution
from utils.training.features import TeacherFeatures
from utils.training.stages import AMPLIFY_WEIGHT, stage1_losses, stage2_loss

PARTS = ("data", "teacher", "forward", "backward")
STAGES = ("I", "II")
AXES = {"images": "training images", "image_size": "image size, pixels", "batch_size": "batch size"}
TEXTURES = 16

Parts = dict[str, float]  # seconds of each of PARTS


@dataclass(frozen=True)
class Setting:
    images: int
    image_size: int
    batch_size: int

    @property
    def steps(self) -> float:
        """Of an epoch."""
        return self.images / self.batch_size


class Laps:
    """Seconds of what is done one after the other."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: Parts = dict.fromkeys(PARTS, 0.0)
        self.last = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def end(self, part: str) -> None:
        """What was done since the last end, or since the start, was this part."""
        now = self._now()
        self.seconds[part] += now - self.last
        self.last = now


class Steps:
    """The data of a setting, and a trainer's steps on it. Few images and their features stand in for all."""

    def __init__(self, trainer: Trainer, setting: Setting):
        self.trainer, self.epoch, batch_size = trainer, 0, setting.batch_size
        few = make_images(batch_size, setting.image_size)
        images = repeat(few, setting.images)
        textures = make_images(TEXTURES, setting.image_size, seed=1)[..., :3].permute(0, 3, 1, 2).contiguous()
        self.anomalies = SyntheticAnomalies(images, textures, batch_size=batch_size, seed=0, device=trainer.device)
        execution = trainer.execution
        self.features = TeacherFeatures(trainer.model, few, batch_size=batch_size, seed=0, execution=execution)
        self.features.keep("on", "ram", Path())
        self.features.images = images
        self.features.kept = [repeat(level, setting.images) for level in self.features.kept]

    def first(self) -> Parts:
        """A step of Stage I."""
        trainer, laps = self.trainer, Laps(self.trainer.device)
        self.epoch += 1
        batch = next(self.anomalies.epoch(self.epoch))
        laps.end("data")
        hook = trainer.model.pretrained.register_forward_hook(lambda *_: laps.end("teacher"))
        focal, amplify, _ = stage1_losses(trainer.model.teacher, *batch, trainer.generator, trainer.execution)
        hook.remove()
        laps.end("forward")
        trainer.first.step(focal + AMPLIFY_WEIGHT * amplify)
        laps.end("backward")
        return laps.seconds

    def second(self) -> Parts:
        """A step of Stage II."""
        trainer, laps = self.trainer, Laps(self.trainer.device)
        teacher_features = next(self.features.epoch(self.epoch))
        laps.end("data")
        loss = stage2_loss(trainer.model.train(), teacher_features, True, trainer.execution)
        laps.end("forward")
        trainer.second.step(loss)
        laps.end("backward")
        return laps.seconds

    def compute_features(self) -> float:
        """Seconds of a batch's features, which are kept."""
        laps = Laps(self.trainer.device)
        self.features.compute(torch.arange(min(self.features.batch_size, len(self.features.images))))
        laps.end("teacher")
        return laps.seconds["teacher"]


def repeat(values: Tensor, count: int) -> Tensor:
    """The same values again and again, `count` in all."""
    return values[torch.arange(count, device=values.device) % len(values)]


@dataclass(frozen=True)
class Epoch:
    """Seconds of an epoch of each stage by part, and of computing the features once."""

    parts: dict[str, Parts]
    features: float


def measure(backbone: str, settings: list[Setting], repetitions: int, device: torch.device) -> dict[Setting, Epoch]:
    """Epochs of all settings, of one warm-up and then `repetitions` steps each."""
    execution = Execution(resolve_precision("auto", device))
    trainer = Trainer(backbone, 64, 2, execution, device, keep=False)  # its own data are not used
    steps = {setting: Steps(trainer, setting) for setting in settings}
    taken: dict[Setting, dict[str, list]] = {setting: {"I": [], "II": [], "features": []} for setting in settings}
    for _ in range(1 + repetitions):
        for setting, step in steps.items():
            for name, call in (("I", step.first), ("II", step.second), ("features", step.compute_features)):
                taken[setting][name].append(call())
    epochs = {}
    for setting, lists in taken.items():
        whole = {}
        for stage in STAGES:
            by_time = sorted(lists[stage][1:], key=lambda parts: sum(parts.values()))
            whole[stage] = {part: setting.steps * s for part, s in by_time[len(by_time) // 2].items()}
        epochs[setting] = Epoch(whole, setting.steps * median(lists["features"][1:]))
    return epochs


def print_table(backbone: str, sweeps: dict[str, list[Setting]], epochs: dict[Setting, Epoch]) -> None:
    print(f"\n{backbone}: seconds of an epoch, its parts, and where most of it goes")
    print(f"| varied | images | pixels | batch | stage | epoch, s | {' | '.join(PARTS)} | most | features once, s |")
    print("|---" * 12 + "|")
    for axis, settings in sweeps.items():
        for setting in settings:
            for stage in STAGES:
                parts = epochs[setting].parts[stage]
                total = sum(parts.values())
                once = f"{epochs[setting].features:.2f}" if stage == "II" else ""
                shares = " | ".join(f"{parts[part] / total:.1%}" for part in PARTS)
                print(f"| {axis} | {setting.images} | {setting.image_size} | {setting.batch_size} | {stage} "
                      f"| {total:.2f} | {shares} | {max(parts, key=parts.get)} | {once} |", flush=True)


def plot(path: Path, sweeps: dict[str, list[Setting]], results: dict[str, dict[Setting, Epoch]]) -> None:
    """A row for each teacher and stage, a column for each of what is varied; parts are stacked."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "scaling", "svg.fonttype": "none"}  # the same figures give the same file
    from matplotlib import pyplot

    rows = [(backbone, stage) for backbone in results for stage in STAGES]
    figure, grid = pyplot.subplots(len(rows), len(sweeps), figsize=(11, 2.6 * len(rows)), squeeze=False,
                                   layout="constrained")
    for (backbone, stage), row in zip(rows, grid, strict=True):
        for (axis, settings), axes in zip(sweeps.items(), row, strict=True):
            names, bottom = [str(getattr(setting, axis)) for setting in settings], torch.zeros(len(settings))
            for part in PARTS:
                heights = torch.tensor([results[backbone][setting].parts[stage][part] for setting in settings])
                axes.bar(names, heights, bottom=bottom, label=part)
                bottom = bottom + heights
            axes.set_xlabel(AXES[axis])
        row[0].set_ylabel(f"{backbone}\nStage {stage}: s an epoch")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(PARTS))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backbones", nargs="+", choices=BACKBONES, default=("efficientnet_lite0", "resnet18"), help="teachers")
    add("--images", type=at_least(1), default=200, help="where they are not varied (default 200)")
    add("--image_size", type=image_size, default=256, help="pixels where they are not varied (default 256)")
    add("--batch_size", type=at_least(1), default=16, help="images where it is not varied (default 16)")
    add("--vary_images", type=at_least(1), nargs="+", default=[50, 100, 200, 400, 800], help="default 50 ... 800")
    add("--vary_image_size", type=image_size, nargs="+", default=[128, 192, 256, 384, 512], help="default 128 ... 512")
    add("--vary_batch_size", type=at_least(1), nargs="+", default=[2, 4, 8, 16, 32], help="default 2 ... 32")
    add("--repetitions", type=at_least(1), default=3, help="timed steps, after a warm-up (default 3)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    add("--plot", type=user_path, metavar="FILE", help="draw the figures: .svg or .png (needs matplotlib)")
    options = parser.parse_args()
    fewest = min(options.images, *options.vary_images)
    if fewest < max(options.batch_size, *options.vary_batch_size):
        parser.error(f"{fewest} images are less than a batch, of which epochs are made here")
    return options


def main() -> None:
    options = parse_args()
    device = pick_device(options.device)
    keep_freed_memory()
    base = Setting(options.images, options.image_size, options.batch_size)
    sweeps = {axis: [replace(base, **{axis: value}) for value in getattr(options, f"vary_{axis}")] for axis in AXES}
    settings = list(dict.fromkeys(setting for varied in sweeps.values() for setting in varied))
    print(", ".join(f"{name} {value}" for name, value in environment().items()), end=", ")
    print(f"{torch.get_num_threads()} threads, {device}, {resolve_precision('auto', device)}")
    results = {}
    for backbone in options.backbones:
        results[backbone] = measure(backbone, settings, options.repetitions, device)
        print_table(backbone, sweeps, results[backbone])
    if options.plot:
        plot(options.plot, sweeps, results)


if __name__ == "__main__":
    main()
