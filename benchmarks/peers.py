"""anomalib beside this project, on one machine in one run: accuracy, seconds of fitting, memory, latency, size.

    pip install -r requirements-peers.txt
    python benchmarks/peers.py --output bench/peers --seeds 0 1 2 --epochs 40 --threads 2
    python benchmarks/peers.py --output bench/peers --print       # the tables, without torch or anomalib
    python benchmarks/peers.py --smoke                            # two minutes, on generated images

The same for all: images decoded and resized by datasets/, kept in memory as uint8; training and test images; the
weights of the ResNet-18; metrics (utils/metrics) of raw maps and scores; threads. Each fit has a process of its own,
whose peak is its memory, and each exported file another one, without torch. In each repetition, which has a seed of its
own, the methods' order is rotated by one. Each measurement is a JSON file in the output folder; those that are there
are not repeated. Beside it stands what the process printed.

What had to be set for anomalib, else everything is its default (benchmarks/peer_anomalib.py):

    weights     timm's resnet18, asked for as pretrained, gets --weights in place of a download; PatchCore, DFM, RD4AD
                and SuperSimpleNet get it in place of a WideResNet50-2 or ResNet-50
    size        pre-processors resize to --image_size, which images have already
    epochs      of the papers, as the classes name none: STFPM 100, RD4AD 200, SuperSimpleNet 300, FastFlow 500,
                DRAEM 700; at most --epochs. There is no early stopping: it would look at test images
    batches     32 images, DRAEM 8: more do not fit into the memory of an ordinary machine
    textures    DRAEM has those of --aux_path, like AAND
    clamped     the table of what post-processing changes: its limits are set on the test set, as anomalib does for
                MVTec AD and VisA; raw maps and scores do not depend on them

Ours: 20 + 20 epochs, at most --epochs each, batches of 16, trained in bfloat16 where the hardware multiplies it;
anomalib trains in float32. Reading is decoding and what else comes before: foregrounds, and for robust the crop.
Fitting is from decoded images to a model that scores. Files are OpenVINO in float32, on images of the model's size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peer_methods import METHODS, Ours, Peer
from benchmarks.peer_tables import format_all, read_record, read_records
from datasets import open_dataset
from datasets.anomalies.textures import list_textures
from utils.cli import CommandParser, add_threads_flag, at_least, image_size, run_command, user_path
from utils.system.environment import code_version, environment
from utils.system.errors import MissingPackage, TrainingError, UsageError
from utils.system.files import write_text
from utils.system.threads import threads_to_use

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = ("mvtec/bottle", "mvtec/pill", "mvtec3d/tire", "folder/magnetic_tile")
INSTALL = "pip install -r requirements-peers.txt"
FORWARDED = ("data_root", "image_size", "epochs", "weights", "aux_path", "repetitions")  # to the processes
SETTINGS = ("image_size", "epochs", "threads", "weights", "repetitions")  # that a record keeps
SMOKE = {
    "categories": ["demo/brick"], "methods": ["anomalib-padim", "anomalib-stfpm", "ours-rd4ad"], "seeds": [0],
    "image_size": 64, "epochs": 1, "weights": "random", "aux_path": "builtin", "repetitions": 5,
}


class Job(NamedTuple):
    """A measurement."""

    category: str  # DATASET/CATEGORY
    method: str
    seed: int

    def path(self, output: Path) -> Path:
        """The file of its record."""
        return output / self.category.rpartition("/")[2] / f"{self.method}-seed{self.seed}.json"


def make_parser() -> CommandParser:
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--output", type=user_path, metavar="DIR", help="folder of the measurements; those in it are not repeated")
    add("--print", action="store_true", help="print the tables of what is there, and measure nothing")
    add("--smoke", action="store_true", help="a quick trial on generated images of 64 pixels, with random weights")
    add("--data_root", type=user_path, default=Path("data"), metavar="DIR", help="folder of the data sets (default "
        "data)")
    add("--categories", nargs="+", default=CATEGORIES, metavar="DATASET/NAME", help="folders below --data_root "
        f"(default {' '.join(CATEGORIES)})")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME", help=f"of {', '.join(METHODS)} "
        "(default: all)")
    add("--seeds", type=at_least(0), nargs="+", default=[0], metavar="N", help="a repetition each (default 0)")
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    add("--epochs", type=at_least(1), metavar="N", help="at most so many, of ours in each stage (default: no limit)")
    add("--weights", default="weights/resnet18_trunk.pth", metavar="W", help="state dict of the ResNet-18 with "
        "torchvision's names, up to layer3 at least, or random (default weights/resnet18_trunk.pth)")
    add("--aux_path", metavar="DTD_IMAGES", help="textures of synthetic anomalies (default: dtd/images below "
        "--data_root)")
    add("--repetitions", type=at_least(1), default=50, metavar="N", help="timed calls with one image; a fifth as many "
        "with a batch (default 50)")
    add_threads_flag(parser)
    add("--fit", nargs=4, metavar=("CATEGORY", "METHOD", "SEED", "DIR"), help=argparse.SUPPRESS)
    add("--time", nargs=2, metavar=("METHOD", "DIR"), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = make_parser()
    options = parser.parse_args()
    options.threads = options.threads or threads_to_use() or os.cpu_count() or 1
    if options.fit:
        from benchmarks.peer_fits import fit

        category, method, seed, folder = options.fit
        fit(options, category, method, int(seed), Path(folder))
    elif options.time:
        from benchmarks.peer_files import time_file

        time_file(options, options.time[0], Path(options.time[1]))
    elif options.smoke:
        smoke(options)
    elif options.output is None:
        parser.error("give --output DIR, or --smoke")
    else:
        if not options.print:
            measure_all(options)
        print(format_all(read_records(options.output)))


def smoke(options: argparse.Namespace) -> None:
    """Measure SMOKE's few methods on generated images, and print their tables."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        demo = ["--size", "64", "--train", "6", "--test_good", "3", "--test_defective", "4"]
        command = [sys.executable, str(ROOT / "scripts/make_demo_data.py"), "--output", str(root / "demo"), *demo]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        places = {"data_root": root, "output": options.output or root / "measured"}
        few = argparse.Namespace(**vars(options) | SMOKE | places)
        measure_all(few)
        print(format_all(read_records(few.output)))


def measure_all(options: argparse.Namespace) -> None:
    """Make the records that are missing. A method that fails costs no other one; TrainingError names them at the
    end."""
    check(options)
    failures = []
    for job in missing_jobs(options):
        print(f"{job.category}, {job.method}, seed {job.seed}", file=sys.stderr, flush=True)
        try:
            write_text(job.path(options.output), json.dumps(measure(job, options), indent=1) + "\n")
        except TrainingError as error:
            failures.append(str(error))
            print(error, file=sys.stderr, flush=True)
    if failures:
        raise TrainingError(f"{len(failures)} measurements failed; the same command tries them again:", *failures)


def check(options: argparse.Namespace) -> None:
    """UsageError, MissingPackage or DataError for what would otherwise be found after hours."""
    wanted = [METHODS[name] for name in options.methods]
    for package in ("openvino", "onnxscript", *(["anomalib"] if any(isinstance(m, Peer) for m in wanted) else [])):
        if find_spec(package) is None:
            raise MissingPackage(f"`methods` {' '.join(options.methods)} need the package {package}: {INSTALL}")
    if options.weights != "random" and not Path(options.weights).is_file():
        raise UsageError(f"`weights` {options.weights}: no such file; give a state dict of a ResNet-18, or random")
    options.aux_path = options.aux_path or str(options.data_root / "dtd/images")
    if any(isinstance(m, Ours) and m.method == "aand" or isinstance(m, Peer) and m.textures for m in wanted):
        list_textures(options.aux_path)
    if options.aux_path == "builtin" and any(isinstance(m, Peer) and m.textures for m in wanted):
        raise UsageError("`aux_path` builtin: anomalib's DRAEM needs a folder of textures; leave it out of `methods`")
    for category in options.categories:
        folder, _, name = category.rpartition("/")
        open_dataset(options.data_root / folder, "auto", [name])


def schedule(categories: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """All measurements in their order: repetition by repetition, each beginning with another method."""
    for repetition, seed in enumerate(seeds):
        start = repetition % len(methods)
        for category in categories:
            for method in (*methods[start:], *methods[:start]):
                yield Job(category, method, seed)


def missing_jobs(options: argparse.Namespace) -> list[Job]:
    """The measurements without a record. Raises UsageError for a record of other settings."""
    missing = []
    for job in schedule(options.categories, options.methods, options.seeds):
        path = job.path(options.output)
        if not path.is_file():
            missing.append(job)
        elif (before := read_record(path)["settings"]) != settings(options):
            raise UsageError(f"{path} was measured with other settings ({before}); choose another `output`")
    return missing


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What figures depend on, as a record keeps it."""
    return {name: Path(value).name if name == "weights" else value for name, value in vars(options).items()
            if name in SETTINGS}


def measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a fit and of its file. Raises TrainingError, which names the log, where a process fails."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    log = job.path(options.output).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with TemporaryDirectory() as folder:
        in_new_process(options, log, "--fit", *map(str, job), folder)
        found = in_new_process(options, log, "--time", job.method, folder)
    facts = {"category": job.category.rpartition("/")[2], "method": job.method, "seed": job.seed}
    known = {"settings": settings(options), "environment": versions(), "code": code_version(), "load": load}
    return facts | known | found


def versions() -> dict[str, Any]:
    """The environment, with the packages that are compared and that run the files."""
    return environment() | {name: version(name) for name in ("anomalib", "openvino") if find_spec(name)}


def in_new_process(options: argparse.Namespace, log: Path, *arguments: str) -> dict[str, Any]:
    """What a process that has done nothing else writes to result.json in the folder that its arguments end with."""
    flags = [f"--{name}={value}" for name in FORWARDED if (value := getattr(options, name)) is not None]
    command = [sys.executable, __file__, *flags, f"--threads={options.threads}", *arguments]
    with log.open("a", encoding="utf-8") as printed:
        quiet = os.environ | {"TQDM_DISABLE": "1"}  # a bar is a line a step in a file
        status = subprocess.run(command, stdout=printed, stderr=subprocess.STDOUT, env=quiet).returncode
    if status:
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"{log.stem}: {arguments[0]} ended with {status}: {last} ({log})")
    return json.loads((Path(arguments[-1]) / "result.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
