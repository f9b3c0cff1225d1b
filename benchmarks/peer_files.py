"""An exported file of benchmarks/peers.py, timed in a process of its own: no torch in its memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.inference import times
from benchmarks.memory import process_peak
from benchmarks.peer_methods import METHODS, Ours
from utils.detection.model_file import ExportedModel

FIGURES = ("file_ms", "file_images_s", "file_gb", "file_mb", "file_difference")

Run = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 3) -> scores (N,)


def time_file(options: argparse.Namespace, method: str, folder: Path) -> None:
    """Time the file that result.json of a fit names, and add what is found to result.json: None for each figure, and
    file_error, where there is no file or it cannot be run."""
    path = folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    found = dict.fromkeys(FIGURES)
    if "file_error" not in result:
        try:
            found = time_probes(folder / result.pop("file"), method, folder / "probe.npz", options)
        except Exception as error:  # of openvino, of many types
            result["file_error"] = f"not run: {(str(error).strip().splitlines() or ['no reason given'])[-1].strip()}"
    path.write_text(json.dumps(result | found), encoding="utf-8")


def time_probes(file: Path, method: str, probe: Path, options: argparse.Namespace) -> dict[str, float]:
    """The figures of a file, in the order of FIGURES."""
    with np.load(probe) as content:
        images, scores = content["images"], content["scores"]
    run = (open_ours if isinstance(METHODS[method], Ours) else open_peer)(file, options.threads)
    single = times(run, images[:1], options.repetitions)
    batches = times(run, images, max(1, options.repetitions // 5))
    size = sum(part.stat().st_size for part in (file, file.with_suffix(".bin")))
    difference = np.abs(run(images) - scores).max() / np.abs(scores).max()  # from PyTorch's
    found = 1000 * np.median(single), len(images) / np.median(batches), process_peak() / 1e9, size / 1e6, difference
    return dict(zip(FIGURES, map(float, found), strict=True))


def open_ours(path: Path, threads: int) -> Run:
    model = ExportedModel(path, threads)
    return lambda images: model.run(images)[1]


def open_peer(path: Path, threads: int) -> Run:
    """A file of anomalib's, with the conversion that its own inferencer does before it."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}  # as our files ask for
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(images: np.ndarray) -> np.ndarray:
        answer = compiled(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return answer["pred_score"].reshape(-1)

    return run
