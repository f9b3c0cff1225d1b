"""Calls of train.py and test.py for tests: in this process (quick) or as a user does, and what they left behind."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.base import load_image
from utils.detection.prediction import Predictor
from utils.runs.folder import Run
from utils.runs.settings import read_config

ROOT = Path(__file__).parents[2]
# A teacher with narrow levels: its student is small and quick. 4 images in batches of 2: their order matters.
TINY = [
    "--backbone", "efficientnet_lite0", "--weights", "random", "--image_size", 32, "--batch_size", 2,
    "--epochs_stage1", 2, "--epochs_stage2", 2, "--device", "cpu", "--workers", 1, "--precision", "fp32",
]
# A category of one's own with thresholds:
OWN = [*TINY, "--image_size", 64, "--epochs_stage1", 1, "--epochs_stage2", 1, "--aux_path", "builtin"]
ASIDE = ["--calibration", 0.4, "--far", 0.25]  # of 10 images: 4, which allow 0.2


@dataclass(frozen=True)
class Result:
    """What a program printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that report an error (a progress bar may stand before one, up to a carriage return)."""
        lines = self.err.replace("\r", "\n").splitlines()
        return [line for line in lines if re.match(r"(\w+\.py: )?error: ", line)]


def run_train(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "train.py", arguments)


def run_test(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "test.py", ("--device", "cpu", "--workers", "1", *arguments))


def run_compare(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/compare.py", arguments)


def run_report(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/report.py", ("--device", "cpu", "--workers", "1", *arguments))


def run_check(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/check_data.py", arguments)


def run_convert(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/convert_checkpoint.py", arguments)


def run_predict(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/predict.py", (*arguments, "--device", "cpu", "--workers", "2"))


def run_app(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/app.py", (*arguments, "--device", "cpu", "--workers", "1"))


def run_calibrate(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/calibrate.py", (*arguments, "--device", "cpu", "--workers", "2"))


def run_extend(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/extend.py", (*arguments, "--device", "cpu", "--workers", "1"))


def run_export(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/export.py", arguments)


def run_sweep(cwd: Path, *arguments: object) -> Result:
    return _call(cwd, "scripts/sweep.py", arguments)


def run_process(cwd: Path, program: str, *arguments: object) -> Result:
    """Run a program of the repository in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, ROOT / program, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


def _call(cwd: Path, program: str, arguments: tuple) -> Result:
    """Run a program in this process; exceptions that it does not handle come out here."""
    out, err, status, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", [program, *map(str, arguments)])
            patch.chdir(cwd)
            runpy.run_path(str(ROOT / program), run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    finally:
        torch.set_num_threads(threads)
    return Result(status, out.getvalue(), err.getvalue())


def listing(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file below the folders with its size and time of change, and every folder."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {str(p): (0, 0) if p.is_dir() else (p.stat().st_size, p.stat().st_mtime_ns) for p in paths}


def read_state(path: Path) -> dict:
    """What a checkpoint holds, without the time that its training took."""
    content = torch.load(path, weights_only=True)
    del content["seconds"]
    return content


def same_weights(first: Path, second: Path, category: str) -> bool:
    """Whether two run folders hold bitwise the same teacher and the same trained stages of a category."""
    pairs = [(Run(first).teacher, Run(second).teacher)]
    one, other = (Run(folder).category(category) for folder in (first, second))
    pairs += [(one.stage(number), other.stage(number)) for number in (1, 2)]
    pairs = [(a, b) for a, b in pairs if a.exists() or b.exists()]
    return all(same_state(read_state(a), read_state(b)) for a, b in pairs)


def same_state(first, second) -> bool:
    """Whether two checkpoints, or parts of them, are bitwise the same."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_state(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def maps_of(run: Path, category: str, images: list[Path]):
    """Anomaly maps (N, S, S) of images by the trained model of a category, loaded from its files."""
    settings = read_config(run)
    model, _ = Run(run).category(category).load_model()
    size = settings["image_size"]
    return Predictor.of(model, size, batch_size=2).maps(decode(images, size)).maps


def decode(paths: list[Path], size: int) -> torch.Tensor:
    """Images uint8 (N, S, S, 3)."""
    return torch.from_numpy(np.stack([load_image(path, size) for path in paths]))


def scores_of(run: Path, category: str, images: list[Path]) -> np.ndarray:
    """The maxima of the maps that test.py makes of images."""
    settings = read_config(run)
    model = Run(run).category(category).load_model()[0].optimize_for_inference()
    size = settings["image_size"]
    return Predictor.of(model, size).maps(decode(images, size)).maps.max(axis=(1, 2))


def run_visa_meta(*arguments) -> subprocess.CompletedProcess:
    """Call scripts/visa_meta.py in a process of its own."""
    command = [sys.executable, ROOT / "scripts" / "visa_meta.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
