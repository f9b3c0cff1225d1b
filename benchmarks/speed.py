"""Images a second of synthesis, both training stages and evaluation, beside plain mode and the processor's limit.

    python benchmarks/speed.py                                        # three teachers, 256 px, batch 16
    python benchmarks/speed.py --backbones resnet18 --repetitions 5 --json speed.json
    python benchmarks/speed.py --memory                               # peak memory first, each case in its own process

Generated images, random weights: speed depends on neither. All is timed in turns in one process: the median, and the
slowest and fastest in brackets. "Plain" is train.py --plain, the same trainer with everything that makes it fast off.
Losses are shared, and so is the memory that glibc keeps, which is set for the whole process: plain mode profits from
both, so the ratios are on the safe side.

The limit is the speed of plain convolutions of wide_resnet50_2's shapes, timed between the steps in the default
precision; the share of it is a default step's FLOPs, as counted, by its time and the limit. "Data" is the share of a
step that makes its batch: synthesis in Stage I, fetching the kept features in Stage II.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.limits import ConvolutionLimit, count_flops
from benchmarks.memory import process_peak
from benchmarks.steps import Trainer, add_step_flags, make_images, median, time_in_turns
from models import BACKBONES
from models.aand import AAND, build_model
from models.teacher import build_teacher
from utils.cli import at_least, user_path
from utils.detection.prediction import Predictor
from utils.system.device import pick_device, resolve_precision
from utils.system.environment import environment
from utils.system.memory import keep_freed_memory
from utils.training.execution import PLAIN, Execution

DEFAULT_BACKBONES = ("wide_resnet50_2", "resnet18", "efficientnet_lite0")
LIMIT_BACKBONE = "wide_resnet50_2"
PUBLIC_SYNTHESIS = 26  # images/s of the method's public code at 256 px on one core, which is all it uses
SYNTHESIS_REPETITIONS = 10  # times --repetitions: it is quick
MEMORY_CASES = {
    "stage2_ram": "Stage II, features kept in memory",
    "stage2_disk": "Stage II, features kept on disk",
    "stage2_off": "Stage II, features not kept",
    "stage1": "Stage I",
}
MEMORY_STEPS = 3  # memory peaks within a step; from the second on there is the optimiser's state

Speed = dict[str, float]  # images/s: median, slowest, fastest


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backbones", nargs="+", choices=BACKBONES, default=DEFAULT_BACKBONES, help="teachers")
    add_step_flags(parser)
    add("--repetitions", type=at_least(1), default=3, metavar="N", help="of each timing, after a warm-up (default 3)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    add("--json", type=user_path, metavar="FILE", help="write all figures, unrounded")
    add("--memory", action="store_true", help="also the peak memory, with the first of the backbones")
    add("--memory_images", type=at_least(1), default=400, metavar="N", help="training images then (default 400)")
    add("--memory_textures", type=at_least(1), default=1, metavar="N", help="textures then; DTD has 5640 (default 1)")
    add("--memory_case", choices=MEMORY_CASES, help="print the peak of one case in GB, and nothing else")
    return parser.parse_args()


def speed(seconds: list[float], images: int) -> Speed:
    return {"median": images / median(seconds), "slowest": images / max(seconds), "fastest": images / min(seconds)}


def shown(speed: Speed) -> str:
    return f"{speed['median']:.2f} [{speed['slowest']:.2f}-{speed['fastest']:.2f}]"


def compare_stages(backbone: str, options: argparse.Namespace, fast: Execution, device: torch.device) -> list[dict]:
    """Both training stages: a row each."""
    size, batch = options.image_size, options.batch_size
    plain = Trainer(backbone, size, batch, PLAIN, device, keep=False)
    default = Trainer(backbone, size, batch, fast, device, keep=True)
    limit = ConvolutionLimit(LIMIT_BACKBONE, size, batch, fast.dtype, device)
    calls: dict[str, Callable[[], object]] = {}
    for stage in ("stage1", "stage2"):
        for name, trainer in (("plain", plain), ("default", default)):
            calls |= {f"{name} {stage}": getattr(trainer, stage), f"limit {name} {stage}": limit}
        calls[f"data {stage}"] = getattr(default, f"{stage}_data")
    seconds = time_in_turns(calls, options.repetitions, device)
    limit_speed = limit.flops / median([s for name in calls if name.startswith("limit") for s in seconds[name]])
    anomalies = default.stage1_data()
    default.stage1_data = lambda: anomalies  # the synthesis is not the model's
    rows = []
    for name, stage in (("I", "stage1"), ("II", "stage2")):
        flops, middle = count_flops(getattr(default, stage)), median(seconds[f"default {stage}"])
        rows.append({
            "teacher": backbone, "stage": name,
            "plain": speed(seconds[f"plain {stage}"], batch), "default": speed(seconds[f"default {stage}"], batch),
            "ratio": median(seconds[f"plain {stage}"]) / middle,
            "gflop_an_image": flops / batch / 1e9, "gflop_s": flops / middle / 1e9, "limit_gflop_s": limit_speed / 1e9,
            "share_of_limit": flops / middle / limit_speed, "data_share": median(seconds[f"data {stage}"]) / middle,
        })
    return rows


def report_training(options: argparse.Namespace, fast: Execution, device: torch.device) -> list[dict]:
    print(f"\nTraining, {options.image_size} px, batch {options.batch_size}, images/s ({fast.precision} by default)")
    print("| teacher | stage | plain | default | ratio | GFLOP an image | GFLOP/s | limit, GFLOP/s | of limit | data |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for backbone in options.backbones:
        for row in compare_stages(backbone, options, fast, device):
            print(f"| {backbone} | {row['stage']} | {shown(row['plain'])} | {shown(row['default'])} "
                  f"| {row['ratio']:.2f} | {row['gflop_an_image']:.1f} | {row['gflop_s']:.0f} "
                  f"| {row['limit_gflop_s']:.0f} | {row['share_of_limit']:.1%} | {row['data_share']:.1%} |",
                  flush=True)
            rows.append(row)
    return rows


def report_synthesis(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    size, batch = options.image_size, options.batch_size
    calls = {"in batches": Trainer("efficientnet_lite0", size, batch, Execution(), device, keep=False).stage1_data}
    seconds = time_in_turns(calls, SYNTHESIS_REPETITIONS * options.repetitions, device)
    print(f"\nSynthesis, {size} px, {torch.get_num_threads()} threads; the public code makes {PUBLIC_SYNTHESIS} "
          "images/s and core at 256 px\n| | images/s | times the public code's core |\n|---|---|---|")
    rows = {name: speed(taken, batch) for name, taken in seconds.items()}
    for name, row in rows.items():
        print(f"| {name} ({batch}) | {shown(row)} | {row['median'] / PUBLIC_SYNTHESIS:.1f} |", flush=True)
    return rows


def untrained_model(backbone: str, device: torch.device) -> AAND:
    torch.manual_seed(0)
    return build_model(build_teacher(backbone, "random")).to(device).eval()


def compare_evaluation(backbone: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Anomaly maps of a batch, and of one image."""
    batch = options.batch_size
    images = make_images(batch, options.image_size)[..., :3]
    models = {
        "plain": untrained_model(backbone, device),
        "fp32": untrained_model(backbone, device).optimize_for_inference(),
        "bf16": untrained_model(backbone, device).optimize_for_inference(torch.bfloat16),
    }

    def predict(name: str, count: int, at_once: int) -> Callable[[], object]:
        predictor = Predictor.of(models[name], options.image_size, batch_size=at_once)
        return lambda: predictor.maps(images[:count])

    calls = {name: predict(name, batch, 1 if name == "plain" else batch) for name in models}
    calls |= {f"one, {name}": predict(name, 1, 1) for name in models}
    seconds = time_in_turns(calls, options.repetitions, device)
    latency = {name: 1000 * median(seconds[f"one, {name}"]) for name in models}
    return {"teacher": backbone, "latency_ms": latency} | {name: speed(seconds[name], batch) for name in models}


def report_evaluation(options: argparse.Namespace, device: torch.device) -> list[dict]:
    print(f"\nEvaluation, {options.image_size} px: images/s, plain one by one, optimised in batches of "
          f"{options.batch_size}; latency of one image in ms\n| teacher | plain | fp32 | bf16 | latency as trained "
          "| fp32 | bf16 |\n|---|---|---|---|---|---|---|")
    rows = []
    for backbone in options.backbones:
        row = compare_evaluation(backbone, options, device)
        cells = [shown(row[name]) for name in row["latency_ms"]] + [f"{ms:.1f}" for ms in row["latency_ms"].values()]
        print(f"| {backbone} | {' | '.join(cells)} |", flush=True)
        rows.append(row)
    return rows


def peak_memory(case: str, options: argparse.Namespace, fast: Execution, device: torch.device) -> float:
    """GB that one case takes at most: of this process, or of a CUDA device."""
    size, batch = options.image_size, options.batch_size
    trainer = Trainer(options.backbones[0], size, batch, fast, device, keep=False)
    stored = make_images(batch, size).repeat(-(-options.memory_images // batch), 1, 1, 1)[: options.memory_images]
    textures = trainer.anomalies.textures[:1].repeat(options.memory_textures, 1, 1, 1)  # train.py keeps both
    trainer.features.images = trainer.anomalies.images = stored
    trainer.anomalies.textures = textures
    step = trainer.stage1 if case == "stage1" else trainer.stage2
    with tempfile.TemporaryDirectory() as folder:
        if case in ("stage2_ram", "stage2_disk"):
            trainer.features.keep("on", case.removeprefix("stage2_"), Path(folder))
        for _ in range(MEMORY_STEPS):
            step()
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else process_peak() / 1e9


def report_memory(options: argparse.Namespace) -> dict[str, float]:
    """Peaks of all cases; to be called before anything is timed, while this process is small (see process_peak)."""
    print(f"\nPeak memory, {options.backbones[0]}, {options.memory_images} images of {options.image_size} px, batch "
          f"{options.batch_size}, {options.memory_textures} textures in memory\n| case | GB |\n|---|---|")
    settings = [f"--{name}={getattr(options, name)}"
                for name in ("image_size", "batch_size", "device", "memory_images", "memory_textures")]
    peaks = {}
    for case, words in MEMORY_CASES.items():
        command = [sys.executable, __file__, "--memory_case", case, "--backbones", options.backbones[0], *settings]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks[case] = float(done.stdout)
        print(f"| {words} | {peaks[case]:.2f} |", flush=True)
    return peaks


def main() -> None:
    options = parse_args()
    device = pick_device(options.device)
    fast = Execution(resolve_precision("auto", device))
    keep_freed_memory()
    if options.memory_case:
        print(peak_memory(options.memory_case, options, fast, device))
        return
    results: dict[str, Any] = {"environment": environment(), "threads": torch.get_num_threads(), "device": str(device),
                               "precision": fast.precision, "image_size": options.image_size,
                               "batch_size": options.batch_size, "repetitions": options.repetitions}
    if device.type == "cuda":
        results["gpu"] = torch.cuda.get_device_name(device)
    print(", ".join(f"{name} {value}" for name, value in (results.pop("environment") | results).items()))
    results["environment"] = environment()
    if options.memory:
        results["memory_gb"] = report_memory(options)
    results["training"] = report_training(options, fast, device)
    results["synthesis"] = report_synthesis(options, device)
    results["evaluation"] = report_evaluation(options, device)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
