"""Speed of a trained model's computing, by runtime and arithmetic: latency of one image, images a second in batches.

    python benchmarks/inference.py                                          # three backbones, 256 px, two threads
    python benchmarks/inference.py --backbones resnet18 --only onnx-fp32 openvino-bf16 torch-optimized

Weights are random: speed does not depend on them. Every row is timed in a process of its own, one after the other, and
has median and 95th percentile of one image's latency, images/s in batches, peak memory of the process (importing and
loading included; on Linux), and the size of the model file. Images have the model's size; torch rows compute what an
exported file does, resize and smoothing included, all but eager with norms folded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.memory import process_peak
from models import BACKBONES
from utils.cli import (
    at_least,
    image_size,
    run_command,
    user_path,
)
from utils.detection.model_file import ExportedModel
from utils.system.environment import environment
from utils.system.errors import UsageError

Run = Callable[[np.ndarray], object]

TORCH_ROWS = ("torch-eager", "torch-optimized", "torch-bf16", "torch-compile", "torch-compile-bf16")
FILE_ROWS = ("onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-bf16", "openvino-int8")
ROWS = (*TORCH_ROWS, *FILE_ROWS)
BACKBONES_TIMED = ("wide_resnet50_2", "resnet18", "efficientnet_lite0")
WARM_UP = 3  # calls before the clock starts; the first compiles


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES_TIMED, metavar="NAME", help="teachers (default "
        f"{', '.join(BACKBONES_TIMED)})")
    add("--only", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    add("--image_size", type=image_size, default=256, metavar="N", help="pixels (default 256)")
    add("--batch_size", type=at_least(1), default=16, metavar="N", help="images (default 16)")
    add("--threads", type=at_least(1), default=2, metavar="N", help="of every runtime (default 2)")
    add("--repetitions", type=at_least(1), default=100, metavar="N", help="timed calls with one image; a fifth as many "
        "with a batch (default 100)")
    add("--child", nargs=3, metavar=("BACKBONE", "ROW", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.child:
        backbone, row, file = args.child
        print(json.dumps(measure(open_row(backbone, row, user_path(file), args), args)))
        return
    packages = [f"{name} {version(name)}" for name in ("onnxruntime", "openvino")]
    print(", ".join([*(f"{name} {value}" for name, value in environment().items()), *packages]))
    print(f"{args.image_size} px, batch {args.batch_size}, {args.threads} threads\n")
    print("| backbone | row | median ms | 95 % ms | images/s | peak GB | file MB |")
    print("|---|---|---|---|---|---|---|")
    for backbone in args.backbones:
        for row in args.only:
            with TemporaryDirectory() as folder:
                path, size = write_file(backbone, row, Path(folder), args), ""
                if row in FILE_ROWS:
                    size = f"{sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6:.1f}"
                found = in_new_process(backbone, row, path, args)
            print(f"| {backbone} | {row} | {found['median']:.1f} | {found['slow']:.1f} | {found['rate']:.1f} | "
                  f"{found['memory']:.2f} | {size} |", flush=True)


def in_new_process(backbone: str, row: str, path: Path, args: argparse.Namespace) -> dict[str, float]:
    """What `measure` gives in a process that has done nothing else."""
    flags = [f"--{name}={getattr(args, name)}" for name in ("image_size", "batch_size", "threads", "repetitions")]
    command = [sys.executable, __file__, *flags, "--child", backbone, row, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"{backbone}, {row}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_file(backbone: str, row: str, folder: Path, args: argparse.Namespace) -> Path:
    """The row's model file; of a row of torch, which builds its model itself, the folder."""
    if row in TORCH_ROWS:
        return folder
    from datasets.view import WHOLE
    from utils.detection.model_file import Facts
    from utils.export.formats import FORMATS, ExportSource, export

    kind, precision = row.split("-")
    path = folder / f"model{FORMATS[kind].suffixes[0]}"
    facts = Facts("random", "aand", backbone, "published", args.image_size, WHOLE, "fp32")
    export(ExportSource(untrained(backbone), facts), kind, path, precision, list(images_of(4, args.image_size)))
    return path


def untrained(backbone: str):
    """A model with random weights."""
    import torch

    from models.aand import build_model
    from models.teacher import build_teacher

    torch.manual_seed(0)
    return build_model(build_teacher(backbone, "random")).eval()


def open_row(backbone: str, row: str, path: Path, args: argparse.Namespace) -> Run:
    """What is timed; torch is not even imported for a model file."""
    if row in FILE_ROWS:
        return ExportedModel(path, args.threads).run
    import torch

    from datasets.view import WHOLE
    from utils.export.model import DeployedModel

    torch.set_num_threads(args.threads)
    model = untrained(backbone)
    if row != "torch-eager":
        model.optimize_for_inference(torch.bfloat16 if row.endswith("bf16") else torch.float32)
    deployed = DeployedModel(model, WHOLE, args.image_size).eval()
    compute = torch.compile(deployed, dynamic=False) if "compile" in row else deployed

    def run(images: np.ndarray) -> object:
        with torch.no_grad():
            return compute(torch.from_numpy(images))

    return run


def images_of(count: int, size: int) -> np.ndarray:
    """Noise, uint8 (N, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def measure(run: Run, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of one image, images a second in batches, and gigabytes that the process has taken at most."""
    single = times(run, images_of(1, args.image_size), args.repetitions)
    batches = times(run, images_of(args.batch_size, args.image_size), max(1, args.repetitions // 5))
    return {
        "median": 1000 * float(np.median(single)),
        "slow": 1000 * float(np.quantile(single, 0.95)),
        "rate": args.batch_size / float(np.median(batches)),
        "memory": process_peak() / 1e9,
    }


def times(run: Run, images: np.ndarray, repetitions: int) -> list[float]:
    """Seconds of each call."""
    for _ in range(WARM_UP):
        run(images)
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run(images)
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    run_command(main)
