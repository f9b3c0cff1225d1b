"""Train AAND, or the reverse-distillation baseline: one model per category, on good images only.

    python train.py --data_root data/mvtec                          # the published settings, DTD beside the data
    python train.py --data_root data/mvtec --categories bottle cable --epochs_stage1 20 --epochs_stage2 20
    python train.py --data_root data/mvtec --method rd4ad           # the baseline
    python train.py --data_root data/mvtec --seeds 0 1 2            # three runs, scored: mean and standard deviation
    python train.py --data_root photographs --preset own            # your own, in folders such as ok/ and scratched/

The result of a run is its last epoch: test images influence nothing here. Score it with test.py. A run that was
stopped, killed or failed goes on where it was:

    python train.py --resume runs/NAME                              # or the same command again

Several processes train one model, each a share of every batch (docs/scaling.md):

    torchrun --nproc_per_node 4 train.py --data_root data/mvtec --sync_norms
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import utils.system.missing  # noqa: F401
from datasets import check_root
from datasets.names import printable
from datasets.windows import MOST_WINDOWS
from models import BACKBONES
from models.recipes import METHODS, RECIPES
from utils.cli import (
    DEFAULT_WORKERS,
    MAX_IMAGE_SIZE,
    MAX_SEED,
    PRECISIONS,
    CommandParser,
    OneOrTwo,
    add_layout_flags,
    add_level_flag,
    add_reading_flags,
    add_threads_flag,
    at_least,
    first_alone_heard,
    image_size,
    or_auto,
    positive,
    run_command,
    share,
    share_or_none,
    user_path,
    words_of_file,
)
from utils.runs.settings import RECORDED
from utils.system.errors import UsageError, command
from utils.training.presets import PRESETS

if TYPE_CHECKING:
    from utils.detection import Detector
    from utils.training.config import TrainConfig
    from utils.training.run import Training
    from utils.training.staging import GoodImage


NO_SETTINGS = ("resume", "preset", "config", "threads")  # flags that stand for others, or have been followed


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    resumed = CommandParser(add_help=False)
    resumed.add_argument("--resume", type=user_path)
    given, others = resumed.parse_known_args()
    if given.resume is not None:
        from utils.runs.resuming import started_with
        from utils.system.errors import RunError

        try:
            before = started_with(given.resume)
        except (RunError, OSError) as error:
            parser.error(f"--resume: {error}")
        sys.argv[1:] = [*before, *others, "--output", str(given.resume)]  # as if it had been called so
    flags = parser.parse_args()
    for name in NO_SETTINGS:
        delattr(flags, name)
    return flags


class TrainParser(CommandParser):
    """A parser whose defaults are those of the preset among the flags, if there is one, and that reads --config."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        early.add_argument("--preset", nargs="?")
        early.add_argument("--config", nargs="?", type=user_path)
        args = list(sys.argv[1:] if args is None else args)
        if (file := early.parse_known_args(args)[0].config) is not None:
            try:
                args = [*words_of_file(self, file, RECORDED), *args]
            except (UsageError, OSError) as error:
                self.error(f"argument --config: {error}")
        self.set_defaults(**PRESETS.get(early.parse_known_args(args)[0].preset, {}))
        return super().parse_known_args(args, namespace)


def make_parser() -> argparse.ArgumentParser:
    parser = TrainParser(description=__doc__)
    add = parser.add_argument
    add("--data_root", type=user_path, required=True, metavar="DIR", help="folder that holds the categories")
    add("--config", type=user_path, metavar="FILE", help="flags in a YAML file, a line `name: value` each, or the "
        "config.json of a run; flags that are given win")
    add("--preset", choices=PRESETS, help="own: for photographs of your own, without any download: --backbone "
        "efficientnet_lite0 --weights bundled --aux_path builtin --recipe robust --calibration auto --far auto "
        "--look auto --epochs_stage1 auto --epochs_stage2 auto; flags that are given win")
    add("--aux_path", metavar="DTD_IMAGES", help="texture images for synthetic anomalies, or 'builtin' (photographs of "
        "scikit-image); default: DTD beside the data set")
    add_layout_flags(parser)
    add("--categories", nargs="+", metavar="NAME", help="categories to train (default: all)")
    add("--method", choices=METHODS, default="aand", help="aand, or a baseline: rd4ad, plain "
        "reverse distillation, or patchcore, a memory of good patches (default aand)")
    add("--recipe", choices=RECIPES, default="published", help="published, or robust (aand only): images cropped "
        "to the objects, in full contrast; maps relative to what is usual for similar patches (default published)")
    add("--backbone", default="wide_resnet50_2", metavar="NAME", help=f"teacher: {', '.join(BACKBONES)} or timm:NAME "
        "(default wide_resnet50_2); resnet50_v1: of the first arrangement, as Caffe's and Keras's --weights are")
    add("--weights", default="default", metavar="W", help="teacher's ImageNet weights: default (download), bundled "
        "(efficientnet_lite0 to 2, with their packages), random (for tests) or the path of a state dict")
    add("--image_size", type=image_size, nargs="+", action=OneOrTwo, default=256, metavar="N", help="pixels of a "
        f"square, or height and width, multiples of 32 up to {MAX_IMAGE_SIZE} (default 256)")
    add("--tiles", type=at_least(1, MOST_WINDOWS), nargs="+", action=OneOrTwo, default=1, metavar="N", help="show the "
        "model each image in overlapping windows of --image_size, N x N of them, or rows and columns: for defects that "
        "are small in large photographs (default 1: all of it at once)")
    add("--roi", type=user_path, metavar="FILE", help="region of interest, beside which nothing trains, scores or "
        "alarms: a mask image, Labelme's JSON, or JSON of a box or polygons; or a folder with such a file for each "
        "category (default: all of the image)")
    add_stage_flags(parser)
    add("--calibration", type=or_auto(share_or_none), default=0.0, metavar="X", help="share of the training images "
        "kept out of training, by which the thresholds of scripts/predict.py are set; auto: a fifth, or up to a third "
        "where the rate needs it (default 0: none)")
    add("--far", type=or_auto(share), default=0.01, metavar="X", help="share of good images that may be called "
        "anomalous with these thresholds, on average; auto: the lowest of 0.01, 0.02, 0.05, 0.1 that a third of the "
        "images allows (default 0.01)")
    add("--look", type=or_auto(share_or_none), default=0.0, metavar="X", help="share of good images that may be called "
        "more than good, those between it and --far being images to look at; auto: four times --far, from 0.1 to 0.3 "
        "(default 0: none)")
    add("--eval_every", type=at_least(0), default=0, metavar="K", help="log the test metrics every K epochs of Stage "
        "II; they influence nothing (default 0: never)")
    add("--tensorboard", action="store_true", help="write curves, and maps at the end, for TensorBoard to the run's "
        "folder tensorboard/")
    add_level_flag(parser)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...; of several processes each takes a "
        "CUDA device of its own (default auto)")
    add_threads_flag(parser)
    add("--fg_root", type=user_path, default=Path("fg_mask"), metavar="DIR", help="foreground masks of "
        "scripts/fore_extractor.py (default fg_mask)")
    add("--output", type=user_path, metavar="DIR", help="run folder (default: the unfinished run of the same command, "
        "or a new runs/DATASET-METHOD-BACKBONE-TIME)")
    add("--resume", type=user_path, metavar="RUN", help="go on with a run, with the flags that it was started with; "
        "others may follow, as far as they change no result")
    add_reading_flags(parser)
    return parser


def add_stage_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of both stages, and of how fast they are."""
    add = parser.add_argument
    add("--batch_size", type=at_least(1), default=16, metavar="N", help="images, of all processes together "
        "(default 16)")
    add("--epochs_stage1", type=or_auto(at_least(1)), default=100, metavar="N", help="epochs of the amplification; "
        "auto: 20, of fewer than 100 images more, of more than 400 fewer (default 100)")
    add("--epochs_stage2", type=or_auto(at_least(1)), default=120, metavar="N", help="epochs of the student; auto as "
        "above (default 120)")
    add("--time_limit", type=positive, metavar="MIN", help="plan as many of these epochs as a whole training has time "
        "for in so many minutes, by a trial of a few steps; results then depend on the machine, but not on resuming, "
        "which keeps the planned epochs (default: none)")
    add("--lr", type=positive, default=0.005, metavar="X", help="Adam's learning rate in both stages (default 0.005)")
    add("--seed", type=at_least(0, MAX_SEED), default=0, metavar="N", help="seed of everything random (default 0)")
    add("--seeds", type=at_least(0, MAX_SEED), nargs="+", metavar="N", help="several seeds instead of --seed, a run "
        "each in OUTPUT/seedN; scored at the end as by test.py: mean and standard deviation")
    add("--precision", choices=PRECISIONS, default="auto", help="arithmetic of the convolutions in training: auto is "
        "bf16 where the hardware multiplies it, otherwise fp32; fp16 on CUDA only (default auto)")
    add("--cache_features", choices=["auto", "on", "off"], default="auto", help="keep the teacher's features for "
        "Stage II, which never change, in memory or, with --cache disk, on disk; auto: where they fit (default auto)")
    add("--compile", action="store_true", help="use torch.compile; needs a C++ compiler, and minutes at first")
    add("--sync_norms", action="store_true", help="with several processes: let the student's batch norms see whole "
        "batches, as those of one process do, not each process's share")
    add("--deterministic", action="store_true", help="on CUDA the same bits every time, more slowly; on a CPU it is "
        "so anyway")
    add("--plain", action="store_true", help="for benchmarks: nothing of what makes training fast (--precision fp32, "
        "--cache none, --cache_features off, no folded norms, plain memory layout and optimiser)")


def main(flags: argparse.Namespace) -> None:
    check_root(flags.data_root)  # torch takes seconds to import, a wrong path is told at once
    from utils.training.config import TrainConfig

    train(TrainConfig(**vars(flags), command=shlex.join(["python", *sys.argv])))


def train(config: TrainConfig) -> None:
    """Train what a config says, and score it where there are several seeds."""
    from utils.system.processes import join
    from utils.training.fitting import fill_memory
    from utils.training.run import open_training
    from utils.training.stages import train_stage1, train_stage2

    with join() as world, open_training(config, world) as training:  # checks every file: errors now, not in hours
        for run in training.seeds:
            for name in run.untrained():
                with run.recording(name):  # one that fails costs no other
                    category = run.begin(name)
                    for stage in category.stages:  # from where an earlier process left them
                        if stage.number == 1:  # amplification, on synthetic anomalies
                            train_stage1(category.model, category.data, run.config, stage)
                        elif run.config.traits.trained:  # student, on good images
                            train_stage2(category.model, category.data, run.config, stage)
                        else:  # memory, of good images
                            fill_memory(category.model, category.data, run.config, stage)
                    category.finish()
        if config.seeds:
            world.broadcast(lambda: score_seeds(training))
        training.finish()


def fit(
    good: Sequence[GoodImage], output: str | Path | None = None, category: str = "object", **settings: Any
) -> Detector:
    """Train on good images from Python, and return the detector, with thresholds.

        from train import fit
        detector = fit(sorted(Path("good").glob("*.png")), output="runs/caps")
        detector.predict("photo.jpg").verdict

    good: paths of image files, Pillow images, or arrays uint8 (H, W, 3) RGB or (H, W), or uint16 (H, W). output: run
    folder that is kept, as of train.py; without, none is. settings: fields of `TrainConfig`, in place of those of
    `--preset own`, e.g. epochs_stage2=40, image_size=320 (pixels), far=0.02, device="cuda".

    Raises UsageError for images and settings that cannot be used, DataError for files that cannot be read, RunError for
    an output that holds something else, SystemExit with status 1 where the training failed.
    """
    from utils.detection import load_detector
    from utils.training.config import TrainConfig
    from utils.training.staging import staged

    with staged(good, category) as root, TemporaryDirectory(prefix="aand-run-") as temporary:
        run = Path(output or temporary)
        preset = {"data_root": root, "dataset": "own", "output": run, "workers": DEFAULT_WORKERS, **PRESETS["own"]}
        free = TrainConfig.__dataclass_fields__.keys() - (preset.keys() - PRESETS["own"].keys())
        unknown = [name for name in settings if name not in free]
        if unknown:
            raise UsageError(f"`settings`: {', '.join(unknown)} cannot be set; see TrainConfig")
        train(TrainConfig(**preset | settings, command="fit"))
        return load_detector(run, category, device=settings.get("device", "cpu"))


def score_seeds(training: Training) -> None:
    """Score all seeds as test.py does, those of earlier calls included."""
    from utils.results.scoring import Scoring, score_run
    from utils.runs.folder import trained_categories

    config, samples, folder = training.plan.config, training.plan.samples, training.folder
    trained = trained_categories(folder)
    test_samples = {name: split.test for name, split in samples.items() if split.test and name in trained}
    left_out = [name for name in samples if name not in test_samples]
    if left_out:
        why = f"no test images, or not trained yet for every seed in {folder}"
        print(printable(f"not scored: {', '.join(left_out)} ({why})"))
    if not test_samples:
        print(training.what_next())
        return
    options = Scoring(
        device=config.torch_device, command=config.command, batch_size=config.batch_size, workers=config.workers,
        cache=config.cache, cache_dir=config.cache_dir, skipped=training.plan.usable.skipped,
    )
    print(score_run(folder, test_samples, training.plan.source.root, options).tables)
    report = command("scripts/report.py", folder)
    print(f"results.csv and results.json are in {printable(folder)}; look at it with: {report}")


if __name__ == "__main__":
    with first_alone_heard():
        given = parse_args()
    run_command(lambda: main(given))
